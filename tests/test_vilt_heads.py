"""Silenced heads against setting their output weights to 0, pruning orders, the file, answers without
looking.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from vqa_world import blocks

from attention_atlas.data.corpus import with_other_images
from attention_atlas.errors import AtlasError
from attention_atlas.files import write_jsonl
from attention_atlas.measures.vqa_accuracy import consensus, vqa_accuracy
from attention_atlas.models.vilt import Vilt
from attention_atlas.studies.vilt_layers.answers import answer_questions, answer_split, majority, read_given
from attention_atlas.studies.vilt_layers.head_file import mask_heads, read_heads, save_heads
from attention_atlas.studies.vilt_layers.heads import importance, order_of, pruned, silence_each, silenced
from attention_atlas.training.questions import of_run
from attention_atlas.training.tasks.vqa import VqaTask


@pytest.fixture(scope="module")
def setup(tmp_path_factory):
    task = VqaTask(patch=16, min_count=1, longest=12)
    task.prepare(blocks(tmp_path_factory.mktemp("w") / "world", 24))
    torch.manual_seed(0)
    small = {
        "layers": 2,
        "heads": 2,
        "dim": 16,
        "inner": 24,
        "image_size": 48,
        "patch_size": 16,
        "max_text": 12,
    }
    return task, Vilt(**task.model_sizes(), **small, initial_std=0.4).eval()


@torch.no_grad()
def test_silencing_equals_zero_output_weights(setup):
    task, model = setup
    batch = task.held_out.batch([0, 1, 2])
    before = model(batch)
    with silenced(model, [(1, 0)]):
        fast = model(batch)
    dense = model.vilt.encoder.layer[1].attention.output.dense
    kept = dense.weight.data.clone()
    dense.weight.data[:, :8] = 0  # what head 0 of two adds goes through the first 8 inputs
    naive = model(batch)
    dense.weight.data = kept
    assert torch.allclose(fast, naive, atol=1e-6)
    assert not torch.allclose(fast, before, atol=1e-4)
    assert torch.equal(model(batch), before)
    with pytest.raises(AtlasError, match="no such head"), silenced(model, [(0, 2)]):
        pass


def test_each_head_against_whole_forwards(setup):
    task, model = setup
    data = task.held_out
    found = silence_each(model, data, 5, "cpu")
    assert found["without"].shape == (len(data), 2, 2, 2)
    indices = list(range(len(data)))
    for layer in range(2):
        for head in range(2):
            with silenced(model, [(layer, head)]), torch.no_grad():
                scores = model(data.batch(indices))
            target = data.batch(indices)["target_BA"]
            loss = torch.nn.functional.binary_cross_entropy_with_logits(scores, target, reduction="none").sum(
                -1
            )
            np.testing.assert_allclose(found["without"][:, layer, head, 1], loss.numpy(), rtol=1e-4)
            right = [
                vqa_accuracy(data.answers[a], e.answers) for a, e in zip(scores.argmax(-1), data.examples)
            ]
            np.testing.assert_allclose(found["without"][:, layer, head, 0], right)
    drop, rise = importance(found)
    np.testing.assert_allclose(drop[:, 0, 1], found["whole"][:, 0] - found["without"][:, 0, 1, 0])
    np.testing.assert_allclose(rise[:, 1, 1], found["without"][:, 1, 1, 1] - found["whole"][:, 1])


def test_order_and_pruning(setup):
    task, model = setup
    assert order_of(np.array([[0.3, 0.1], [0.1, -2.0]])) == [(1, 1), (0, 1), (1, 0), (0, 0)]
    order = [(0, 0), (1, 1), (0, 1), (1, 0)]
    backwards = order[::-1]
    found, other = pruned(model, task.held_out, (order, backwards), [0, 2, 4], 7, "cpu")
    assert np.array_equal(found[:, [0, 2]], other[:, [0, 2]]), "none and all, in any order"
    with torch.no_grad(), silenced(model, order[:2]):
        scores = model(task.held_out.batch(list(range(len(task.held_out)))))
    right = [
        vqa_accuracy(task.answers[a], e.answers) for a, e in zip(scores.argmax(-1), task.held_out.examples)
    ]
    np.testing.assert_allclose(found[:, 1], right)


def test_file_keeps_everything_and_judges_elsewhere(setup, tmp_path):
    task, model = setup
    task.save(tmp_path)
    config = {"train": {"task": {"patch": 16, "longest": 12}}}
    corpus = task.train.corpus
    found = mask_heads(
        model, corpus, task.vocab, config, tmp_path, splits=("val", "test"), examples=(6, 9), device="cpu"
    )
    save_heads(tmp_path / "heads.npz", found)
    read = read_heads(tmp_path / "heads.npz")
    assert all(np.array_equal(read[name], found[name]) for name in read)
    by_id = {e.id: corpus.scene(e).split for e in corpus.examples}
    assert {by_id[i] for i in read["ids"]} == {"val"} and len(read["ids"]) == 6
    assert {by_id[i] for i in read["pruned_ids"]} == {"test"} and len(read["pruned_ids"]) == 9
    assert read["steps"].tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(read["pruned_importance"][:, [0, -1]], read["pruned_random"][:, [0, -1]])
    (tmp_path / "heads.npz").write_bytes(b"no")
    with pytest.raises(AtlasError, match="run it again"):
        read_heads(tmp_path / "heads.npz")


def test_answers_and_majority(setup):
    task, model = setup
    rows = answer_questions(model, task.held_out, 4, "cpu")
    with torch.no_grad():
        best = model(task.held_out.batch([3]))[0].argmax()
    assert rows[3]["id"] == task.held_out.examples[3].id and rows[3]["answer"] == task.answers[best]
    corpus = task.train.corpus
    train, asked = corpus.split("train"), corpus.split("test")
    red = next(e for e in asked if e.text.startswith("Is"))
    # Four of twelve blocks are red.
    assert majority(train, asked)[red.id] == "no"
    counts = Counter(consensus(e.answers) for e in train)
    assert counts[majority(train, asked, "all")[red.id]] == max(counts.values())
    unseen = [type(red)("new", red.image_id, "What color is the ball?", answers=["red"])]
    assert majority(train, unseen)["new"] in ("blue", "green", "red")  # by group: what color


def test_a_model_that_looks_also_answers_before_another_image(setup, tmp_path):
    task, model = setup
    task.save(tmp_path)
    config = {"train": {"task": {"patch": 16, "longest": 12, "min_count": 1}}}
    rows = answer_split(model, task.train.corpus, "test", task.vocab, config, tmp_path, "cpu", batch_size=5)
    examples = sorted(task.train.corpus.split("test"), key=lambda e: e.id)
    assert [r["id"] for r in rows] == [e.id for e in examples]
    data = of_run(task.train.corpus, with_other_images(examples), task.vocab, config, task.answers)
    wanted = [task.answers[int(model(data.batch([i])).argmax())] for i in range(len(examples))]
    assert [r["other"] for r in rows] == wanted != [r["answer"] for r in rows]
    write_jsonl(tmp_path / "given.jsonl", rows)
    assert list(read_given(tmp_path / "given.jsonl", "other").values()) == wanted
    model.blind = True
    try:
        unseen = answer_split(model, task.train.corpus, "test", task.vocab, config, tmp_path, "cpu")
    finally:
        model.blind = False
    assert "other" not in unseen[0]
    write_jsonl(tmp_path / "unseen.jsonl", unseen)
    with pytest.raises(AtlasError, match="other: field is missing"):
        read_given(tmp_path / "unseen.jsonl", "other")
