"""The task and the evaluator of M4C: which answers can be built, targets, scores and grounding by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from m4c_world import signs

from attention_atlas.data.corpus import Corpus, Example
from attention_atlas.data.ocr_file import OcrImage, OcrToken
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.models.m4c import M4C
from attention_atlas.regions.phoc import phoc
from attention_atlas.studies.alignment.m4c import (
    POINTED,
    M4cEvaluator,
    baselines,
    best_head,
    gold_tokens,
    grounded,
    steps_look,
    summary,
)
from attention_atlas.studies.alignment.result import GAIN
from attention_atlas.training.loop import train
from attention_atlas.training.scene_text import best_read, spell, token_word
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.text_vqa import TextVqaTask, generate_answers

SETTINGS = {"answer_min": 10, "batch_size": 16, "steps": 3, "objects": 4, "longest": 8}
ALIGNMENT = {"_target_": "attention_atlas.alignments.general_kq.GeneralKQ"}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return signs(tmp_path_factory.mktemp("signs"))


@pytest.fixture
def task(world):
    corpus, features, ocr = world
    made = TextVqaTask(ocr, **SETTINGS)
    made.prepare(corpus, features)
    return made


def model_of(task, **more):
    torch.manual_seed(0)
    sizes = {"layers": 2, "heads": 2, "dim": 32, "inner": 48, "text_layers": 1, "dropout": 0.0}
    return M4C(alignment=ALIGNMENT, norm_first=True, **(task.model_sizes() | sizes | more))


def test_answers_are_spelled_by_vocabulary_and_by_what_was_read():
    vocab = Vocabulary(["red", "no"])  # ids 4 and 5; words read are 6, 7, 8
    people = ["No smoking"] * 5 + ["no smokin"] * 2 + ["red"] * 2 + ["the red"]
    found = spell(people, vocab, ["smoking", "no", "smoking"], 2)
    assert [(s.words, s.options, s.people) for s in found] == [
        (["no", "smoking"], [[5, 7], [6, 8]], 5),
        (["red"], [[4]], 3),  # articles go
    ]
    assert spell(people, vocab, ["smoking"], 1)[0].words == ["red"]
    assert spell(["exit"], vocab, [], 3) == []


def test_words_read_are_compared_in_lower_case_without_points():
    assert [token_word(OcrToken(t, (0, 0, 1, 1))) for t in ("EXIT!", "it's", "...")] == [
        "exit",
        "it's",
        "...",
    ]
    image = OcrImage(
        "a", (9, 9), [OcrToken(t, (0, 0, 1, 1), c) for t, c in (("a", 0.5), ("b", 0.2), ("c", 0.9))]
    )
    assert [t.text for t in best_read(image, 2)] == ["a", "c"]


def test_targets_say_every_way_to_spell_the_drawn_answer(task):
    size = len(task.answer_vocab)
    for batch in task.batches(0):
        assert bool((batch["previous_BS"][:, 0] == BOS).all())
        for b in range(len(batch["ids_BT"])):
            first, second, third = (
                set(np.flatnonzero(batch["target_BSA"][b, s].numpy()).tolist()) for s in range(3)
            )
            assert first and second == {EOS} and not third
            assert batch["counts_BS"][b].tolist() == [True, True, False]
            previous = int(batch["previous_BS"][b, 1])
            assert previous in first
            assert all(o < size or bool(batch["ocr_BO"][b, o - size]) for o in first)


def test_batches_depend_on_seed_and_epoch_alone(task):
    def content(seed, epoch, start=0):
        task.seed = seed
        return [
            torch.cat([b["previous_BS"].flatten(), b["ids_BT"].flatten()]) for b in task.batches(epoch, start)
        ]

    first, again, later = content(0, 0), content(0, 0), content(0, 0, start=2)
    assert all(map(torch.equal, first, again)) and all(map(torch.equal, first[2:], later))
    assert len(first) == task.steps_per_epoch()
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, content(1, 0)))
    assert not all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(first, content(0, 1)))


def test_answer_vocabulary_has_the_frequent_words_of_training_answers(task, world):
    corpus, features, ocr = world
    assert set(task.answer_vocab.words) >= {"red", "blue"} or len(task.answer_vocab.words) >= 1
    every = TextVqaTask(ocr, **(SETTINGS | {"answer_min": 1, "answer_size": 4}))
    every.prepare(corpus, features)
    assert len(every.answer_vocab.words) == 4


def test_bad_settings_and_data_are_named(world, tmp_path):
    corpus, features, ocr = world
    with pytest.raises(ConfigError, match="steps: must be at least 2"):
        TextVqaTask(ocr, steps=1)
    with pytest.raises(AtlasError, match="no such file"):
        TextVqaTask(str(tmp_path / "none.jsonl")).prepare(corpus, features)
    with pytest.raises(AtlasError, match="split 'extra' has no example"):
        TextVqaTask(ocr, split="extra").prepare(corpus, features)
    bare = Corpus(corpus.root, corpus.scenes, [Example(e.id, e.image_id, e.text) for e in corpus.examples])
    with pytest.raises(AtlasError, match="answers: none"):
        TextVqaTask(ocr).prepare(bare, features)
    (tmp_path / "few.jsonl").write_text(Path(ocr).read_text().splitlines()[0])
    with pytest.raises(AtlasError, match="is missing; run the OCR stage"):
        TextVqaTask(str(tmp_path / "few.jsonl")).prepare(corpus, features)


def best_spelled(task):
    """Per cent: every sign was read, so only a colour too rare for the answer vocabulary is lost."""
    test = task.of("test")
    able = [e.extra["from"] == "sign" or e.answers[0] in task.answer_vocab.words for e in test]
    return 100 * sum(able) / len(able)


@pytest.mark.slow
def test_it_learns_to_copy_and_the_evaluator_shows_it(task, tmp_path, monkeypatch):
    model = model_of(task)
    settings = TrainSettings(epochs=20, validate_every=20, lr=4e-3, clip_norm=1.0)
    weights, history = train(task, model, settings, tmp_path)
    model.load_state_dict(weights)
    result = M4cEvaluator(shown=2)(model, task, "cpu").check()
    assert result.scores["accuracy"] > result.scores["accuracy, random words"] + 20
    assert result.scores["accuracy, best from OCR"] == pytest.approx(best_spelled(task))
    assert history[-1]["accuracy"] > 40
    assert result.scores[GAIN] > 20, "before another image the words to copy are others"
    rows = [r for r in result.examples if r["metric"] != GAIN]
    pointed = [r["value"] for r in rows if r["metric"] == POINTED]
    assert result.scores[POINTED] == pytest.approx(np.mean(pointed)) and result.scores[POINTED] > 50
    assert result.scores[f"chance {POINTED}"] == pytest.approx(100 / 3)
    copied = [r for r in rows if r["metric"] == "exact" and r["from"] == "sign"]
    assert len(pointed) == len(copied), "colours are not copied"
    rows = [r for r in rows if r["metric"] != POINTED]
    assert {r["metric"] for r in rows} == {"accuracy", "ANLS", "exact"}
    assert len(rows) == 3 * 24 and {r["type"] for r in rows} == {"color", "what color"}
    assert len(result.examples) == 4 * 24 + len(pointed)
    assert len(result.shown) == 2 and result.shown[0].boxes_N4.shape == (3, 4)
    answer, pointer = result.shown[0].words
    assert pointer == f"{answer} (pointer)" and result.shown[0].attn_WN[1].sum() == pytest.approx(1)
    for example in task.corpus.examples:  # as in TextVQA, which does not annotate where an answer is
        monkeypatch.delitem(example.extra, "sign", raising=False)
    unknown = M4cEvaluator(shown=2)(model, task, "cpu").check()
    assert unknown.grounding == [] and len(unknown.shown) == 2
    assert {g["chance"] for g in result.grounding} == {1 / 3}
    result.save(tmp_path / "run")
    blind = M4cEvaluator()(model_of(task, blind=True), task, "cpu").check()
    assert blind.grounding == [] and blind.shown == [] and GAIN not in blind.scores


def test_scores_are_means_over_their_groups():
    def row(value, metric="exact", **more):
        return {"example": "e", "metric": metric, "value": value, **more}

    rows = [row(100.0, **{"from": "sign", "words": "new"}), row(0.0, **{"from": "sign", "words": "seen"})]
    rows += [row(100.0, **{"from": "vocabulary"}), row(60.0, "accuracy"), row(30.0, "accuracy")]
    assert summary(rows) == {
        "accuracy": 45.0,
        "copied right": 50.0,
        "copied right, new words": 100.0,
        "vocabulary right": 100.0,
    }


def test_baselines_by_hand(task):
    # Each image has three words. Of a sign: 8 of 10 people are right, two name a misspelling,
    # so one of three words is right: 1/3; a colour is none of the words; two of three questions are of signs.
    found = baselines(task.questions(task.of("test")))
    assert found["accuracy, random words"] == pytest.approx(100 * 2 / 3 / 3)
    assert found["accuracy, best from OCR"] == pytest.approx(best_spelled(task))
    assert 60 < best_spelled(task) < 100


def test_gold_words_are_those_on_the_sign_that_are_alike(world):
    corpus, _, _ = world
    example = next(e for e in corpus.examples if e.extra["from"] == "sign")
    box = corpus.scene(example).object(example.extra["sign"]).box
    word = example.extra["answer"]
    inside = (box[0] + 1, 7.0, box[2] - 1, 12.0)
    read = [
        OcrToken(word.upper(), (0.0, 30.0, 9.0, 35.0)),  # the right word elsewhere
        OcrToken(word[:-1], inside),
        OcrToken("zzz", (inside[0], 12.0, inside[2], 16.0)),
    ]
    assert gold_tokens(example, corpus, read, (96, 40)) == [[1]]
    assert gold_tokens(example, corpus, read[2:], (96, 40)) == [[]]
    colour = next(
        e for e in corpus.examples if e.extra["from"] == "vocabulary" and e.image_id == example.image_id
    )
    first = corpus.scene(colour).object(1).box
    mine = [OcrToken("a", (first[0] + 1, 7.0, first[2] - 1, 9.0)), OcrToken("b", (70.0, 7.0, 80.0, 9.0))]
    assert gold_tokens(colour, corpus, mine, (96, 40)) == [[0]]
    assert gold_tokens(Example("x", example.image_id, "what?", answers=["x b"]), corpus, read, (96, 40)) == [
        [],
        [],
    ]


def test_grounding_rows_by_hand(task):
    questions = task.questions(task.of("test"))
    example = questions.examples[0]
    at = int(example.extra["sign"]) - 1
    attn = np.array([[0.1, 0.1, 0.1]])
    attn[0, at] = 0.4
    (row,) = grounded(questions, 0, ([example.extra["answer"]], attn), task)
    assert row["mass"] == pytest.approx(0.4 / 0.6) and row["chance"] == 1 / 3 and row["top1"] == 1
    assert grounded(questions, 0, (["x"], np.zeros((1, 3))), task) == []


def test_steps_look_is_the_attention_of_each_step_on_the_words_read(task):
    model = model_of(task).eval()
    questions = task.questions(task.of("test"))
    looks, pointers = steps_look(model, questions, 5, "cpu")
    again, _ = steps_look(model, questions, 24, "cpu")
    batch = questions.batch(range(24)) | {"previous_BS": torch.full((24, 1), BOS)}
    with torch.no_grad():
        scores_BO = model(batch)[:, 0, -3:]
    for (_, pointer_WO), scores_O in zip(pointers, scores_BO):
        assert np.allclose(pointer_WO[0], scores_O.softmax(-1), atol=1e-5)
    assert len(looks) == 24
    for (words, attn), (also, other) in zip(looks, again):
        assert words == also and attn.shape == (2, 2, 1, 3)
        assert bool((attn.sum(-1) > 0).all()) and bool((attn.sum(-1) < 1).all())
        assert np.allclose(attn, other, atol=2e-3)


def test_the_head_that_looks_best_is_found(task):
    questions = task.questions(task.of("val"))
    looks = []
    for example in questions.examples:
        attn = np.full((2, 3, 1, 3), 0.1)
        attn[1, 2, 0, int(example.extra["sign"]) - 1] = 0.3
        looks.append(([example.extra.get("answer", "red")], attn))
    assert best_head(questions, looks, task) == (1, 2)


@pytest.mark.parametrize("exchange", [0.0, 1.0])
def test_words_that_the_question_names_are_marked(world, exchange):
    corpus, features, ocr = world
    made = TextVqaTask(ocr, **(SETTINGS | {"answer_min": 1, "exchange": exchange}))
    made.prepare(corpus, features)
    train = made.train
    name = train.examples[0].image_id
    train.numbers[0] = [1, 2, train.read_numbers[name][1]]
    rng = np.random.default_rng(0) if exchange else None
    marked_O = train.batch([0], rng)["ocr_asked_BO"][0].tolist()
    number = train.read_numbers[name][1]
    assert marked_O == [n == number for n in train.read_numbers[name]] and any(marked_O)


@torch.no_grad()
def test_marks_reach_the_model_only_if_it_reads_them(task):
    questions = task.questions(task.of("test"))
    batch = questions.batch([0, 1]) | {"previous_BS": torch.full((2, 1), BOS)}
    other = batch | {"ocr_asked_BO": ~batch["ocr_asked_BO"]}
    for mark_asked in (True, False):
        model = model_of(task, mark_asked=mark_asked).eval()
        assert torch.equal(model(batch), model(other)) != mark_asked


def test_exchanged_words_replace_every_occurrence(world):
    corpus, features, ocr = world
    made = TextVqaTask(ocr, **(SETTINGS | {"answer_min": 1, "exchange": 1.0}))
    made.prepare(corpus, features)
    train = made.train
    lexicon = {n + 2: w for n, w in enumerate(train.lexicon)}
    i = next(i for i, e in enumerate(train.examples) if e.extra["from"] == "sign")
    name = train.examples[i].image_id
    read = [token_word(t) for t in train.read[name]]
    right = read.index(train.examples[i].extra["answer"])
    # A question that names a word that was read: it must be renamed as well.
    train.numbers[i] = [1, train.read_numbers[name][0]]
    changed = set()
    for seed in range(12):
        batch = train.batch([i], np.random.default_rng(seed))
        where = train.exchanged(name, np.random.default_rng(seed))
        now = [lexicon[where[n]] for n in train.read_numbers[name]]
        changed |= set(now)
        assert len(set(now)) == 3 and set(now) <= set(train.lexicon)
        assert torch.equal(batch["ocr_spelling_BOP"][0], torch.stack([torch.tensor(phoc(w)) for w in now]))
        assert torch.equal(batch["spelling_BTP"][0, 1], torch.tensor(phoc(now[0])))
        right_words = {int(o) for o in batch["target_BSA"][0, 0].nonzero()[:, 0]}
        size = len(made.answer_vocab)
        if size + right in right_words:  # not a misspelt answer
            assert right_words == {size + right, *made.answer_vocab.encode([now[right]])} - {3}
    assert len(changed) > 5
    plain = made.questions(train.examples).batch([i], np.random.default_rng(0))
    assert torch.equal(plain["ocr_spelling_BOP"][0], torch.stack([torch.tensor(phoc(w)) for w in read]))


def test_said_is_the_text_of_the_ids(task):
    questions = task.questions(task.of("test"))
    size = len(task.answer_vocab)
    read = [token_word(t) for t in questions.read[questions.examples[0].image_id]]
    assert questions.text(0, [size + 2, 4, EOS, size]) == f"{read[2]} {task.answer_vocab.words[0]}"
    assert len(generate_answers(model_of(task).eval(), questions, 7)) == len(questions)
