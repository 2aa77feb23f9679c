"""The evaluator of MAC: accuracy, grounding of a planted attention by hand, cells, what is shown."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mac_world import SIDE, shapes

from attention_atlas.data.corpus import Example, Phrase, with_other_images
from attention_atlas.errors import AtlasError
from attention_atlas.models.mac import Mac
from attention_atlas.studies.alignment.mac import (
    Looked,
    MacEvaluator,
    answer_step,
    asked_objects,
    cells_in,
    gold_places,
    most_frequent,
)
from attention_atlas.studies.alignment.result import GAIN, RunResult
from attention_atlas.training.tasks.compositional import CompositionalTask


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    task = CompositionalTask(batch_size=5)
    task.prepare(*shapes(tmp_path_factory.mktemp("shapes")))
    return task


def model_of(task, seed=0, **more):
    torch.manual_seed(seed)
    return Mac(**task.model_sizes(), dim=8, word_dim=4, steps=3, **more)


def test_rows_scores_and_files(task, tmp_path):
    model = model_of(task)
    found = MacEvaluator(shown=4, batch_size=7)(model, task, "cpu")
    examples = task.corpus.split("test")
    predicted = [task.answers[int(model(task.questions([e]).batch([0])).argmax())] for e in examples]
    expected = {e.id: 100.0 * (s == e.answers[0]) for e, s in zip(examples, predicted)}
    own = [row for row in found.examples if row["metric"] == "accuracy"]
    assert {row["example"]: row["value"] for row in own} == expected
    turned = with_other_images(sorted(examples, key=lambda e: e.id))
    others = {
        e.id: 100.0 * (task.answers[int(model(task.questions([e]).batch([0])).argmax())] == e.answers[0])
        for e in turned
    }
    gains = {row["example"]: row["value"] for row in found.examples if row["metric"] == GAIN}
    assert gains == {id_: expected[id_] - others[id_] for id_ in expected}
    assert found.scores[GAIN] == pytest.approx(np.mean(list(gains.values())))
    assert found.scores["accuracy"] == pytest.approx(np.mean(list(expected.values())))
    assert {row["type"] for row in own} == {e.extra["type"] for e in examples}
    found.save(tmp_path / "run")
    again = RunResult.load(tmp_path / "run")
    assert again.scores == found.scores and len(again.shown) == 4
    asked = {e.id for e in examples if e.extra["asked"]}
    assert {row["example"] for row in found.grounding} == asked
    for row in found.grounding:
        scene = task.corpus.scene(next(e for e in examples if e.id == row["example"]))
        gold = next(e for e in examples if e.id == row["example"]).extra["asked"]
        assert row["chance"] == pytest.approx(len(gold) / (len(scene.objects) + 1))


def test_the_same_questions_are_shown_for_every_model(task):
    one = MacEvaluator(shown=3)(model_of(task), task, "cpu").shown
    other = MacEvaluator(shown=3)(model_of(task, seed=5), task, "cpu").shown
    assert [s.example for s in one] == [s.example for s in other] and len(one) == 3
    assert not np.allclose(one[0].attn_WN, other[0].attn_WN)
    item = one[1]
    example = next(e for e in task.corpus.examples if e.id == item.example)
    scene = task.corpus.scene(example)
    assert (
        item.image == task.corpus.image_path(scene.image_id).as_posix()
        and item.size == (SIDE, SIDE)
        and item.text.startswith(example.text)
    )
    assert np.allclose(item.boxes_N4[0], scene.objects[0].box) and len(item.words) == 3
    assert np.allclose(item.attn_WN.sum(1), 1, atol=1e-5)
    assert all(word.split(": ")[1] in task.questions([example]).words[0] for word in item.words)


def looked(example, read_SN, grid=None):
    read_SN = np.array(read_SN)
    return Looked(example, 0, 0, ["a"], np.ones((len(read_SN), 1)), read_SN, grid)


def test_grounding_of_a_planted_attention(task, monkeypatch):
    """Regions are the things 1, 2, ... and the background; step 2 of 3 looks where it should on `val`."""
    import attention_atlas.studies.alignment.mac as study

    def planted(model, questions, device, batch_size, looks):
        rows = []
        for example in questions.examples:
            count = len(task.corpus.scene(example).objects) + 1
            gold = np.isin(np.arange(1, count + 1), example.extra["asked"] or [1])
            right = np.where(gold, 0.9 / gold.sum(), 0.1 / max((~gold).sum(), 1))
            split = task.corpus.scene(example).split
            rows.append(
                looked(example, [np.ones(count) / count, right if split == "val" else right[::-1], right])
            )
            if split == "val":
                rows[-1].read_SN[2] = 1 / count
        return rows

    monkeypatch.setattr(study, "_run", planted)
    found = MacEvaluator(shown=0)(model_of(task), task, "cpu")
    # Step 2 is chosen on `val`, although on the test questions step 3 would be the better one.
    some = next(r for r in found.grounding if r["example"].endswith("_q2"))  # asks for the leftmost thing
    example = next(e for e in task.corpus.examples if e.id == some["example"])
    count = len(task.corpus.scene(example).objects) + 1
    assert some["mass"] == pytest.approx(0.1 / (count - 1)) and some["chance"] == pytest.approx(1 / count)
    assert some["top1"] == 0 and some["word"] == "answer step"


def test_the_answer_step_by_hand(task):
    example = next(e for e in task.corpus.examples if e.extra["asked"] == [1])
    count = len(task.corpus.scene(example).objects) + 1
    weak, strong = np.full(count, 0.1), np.full(count, 0.0)
    strong[0] = 0.8
    found = [looked(example, [weak, strong, weak]), looked(example, [weak, weak, strong])]
    assert gold_places(found[0], task).tolist() == [True] + [False] * (count - 1)
    assert answer_step(found, task, 3) == 1  # 0.1, 0.45, 0.45: the first of equals
    assert answer_step(found[1:], task, 3) == 2
    nothing = Example("x", example.image_id, "Is it?", extra={"asked": []})
    assert answer_step([looked(nothing, [weak, weak, weak])], task, 3) == 2


def test_what_a_question_asks_for():
    phrases = [Phrase(0, 2, [3, 1]), Phrase(3, 5, [1])]
    assert asked_objects(Example("x", "i", "Is it so?", phrases)) == [1, 3]
    assert asked_objects(Example("x", "i", "Is it so?", phrases, extra={"asked": [7]})) == [7]
    assert asked_objects(Example("x", "i", "Is it so?", phrases, extra={"asked": []})) == []


def test_cells_by_hand():
    # 2 × 3 cells on 30 × 20 pixels; centres at x 5, 15, 25 and y 5, 15.
    assert cells_in((2, 3), (30, 20), [(0, 0, 16, 6)]).tolist() == [True, True, False, False, False, False]
    assert cells_in((2, 3), (30, 20), [(21, 11, 23, 12)]).tolist() == [False] * 5 + [True]  # holds no centre
    both = cells_in((2, 3), (30, 20), [(0, 0, 6, 6), (24, 14, 30, 20)])
    assert both.tolist() == [True, False, False, False, False, True]


def test_a_grid_and_a_blind_model(tmp_path):
    corpus, features = shapes(tmp_path)
    task = CompositionalTask(knowledge="grid", image=24)
    task.prepare(corpus, None)
    model = model_of(task, knowledge="grid", stem=[4], strides=[4])
    found = MacEvaluator(shown=2)(model, task, "cpu").check()
    assert found.shown[0].grid == (6, 6) and found.shown[0].attn_WN.shape == (3, 36)
    example = next(e for e in corpus.examples if e.id == found.grounding[0]["example"])
    boxes = [corpus.scene(example).object(i).box for i in example.extra["asked"]]
    assert found.grounding[0]["chance"] == cells_in((6, 6), (SIDE, SIDE), boxes).mean()
    task = CompositionalTask()
    task.prepare(corpus, features)
    blind = MacEvaluator()(model_of(task, blind=True), task, "cpu").check()
    assert blind.grounding == [] and blind.shown == [] and len(blind.examples) == 36


def test_the_most_frequent_answer_of_a_type_by_hand():
    def asked(*rows):
        return [
            Example(str(i), "i", "Is it?", answers=[a], extra={"type": t}) for i, (t, a) in enumerate(rows)
        ]

    train = asked(("Exist", "no"), ("Exist", "yes"), ("Exist", "yes"), ("Count", "2"), ("Count", "1"))
    test = asked(
        ("Exist", "yes"), ("Exist", "no"), ("Count", "1"), ("Count", "2"), ("Query Attribute", "red")
    )
    # "yes" and, of equally frequent answers, the first: "1"; a type that training lacks is never right.
    assert most_frequent(train, test) == pytest.approx(40.0)


def test_a_split_without_questions_is_named(task):
    with pytest.raises(AtlasError, match="split 'extra' has no question"):
        MacEvaluator(split="extra")(model_of(task), task, "cpu")
