"""From image to map: a model built to look at the bright patch, captured, lands on it in images of any
shape.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from attention_atlas.data.corpus import (
    Example,
    Phrase,
    Scene,
    SceneObject,
    read_corpus,
    write_examples,
    write_scenes,
)
from attention_atlas.dumps.dump import DumpSettings, dump
from attention_atlas.dumps.vqa import GROUPS, VqaDump
from attention_atlas.errors import AtlasError
from attention_atlas.files import write_jsonl
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.models.vilt import Vilt
from attention_atlas.recording import AttentionStore, StatisticsStore
from attention_atlas.studies.vilt_layers.dump import AT_RANDOM, BY_RULE, choose, dump_questions
from attention_atlas.studies.vilt_layers.measures import measure
from attention_atlas.studies.vilt_layers.record import read_question
from attention_atlas.studies.vilt_layers.shown import patch_grid, word_maps, write_shown

# (width, height): square, wide, tall; row and column of the bright patch.
PLANTED = {"square": ((48, 48), (1, 2)), "wide": ((96, 32), (1, 4)), "tall": ((32, 80), (3, 0))}
CONFIG = {"train": {"task": {"patch": 16, "longest": 12}}}
VOCAB = Vocabulary(["what", "where", "is", "the", "color", "lamp", "?"])


def bright_model():
    """One layer, one head: every position looks at what is bright."""
    model = Vilt(
        vocab_size=len(VOCAB),
        answers=2,
        layers=1,
        heads=1,
        dim=8,
        inner=8,
        image_size=48,
        patch_size=16,
        max_text=12,
    )
    for name, parameter in model.named_parameters():
        if "LayerNorm" not in name and "layernorm" not in name:
            parameter.data.zero_()
    embeddings, attention = model.vilt.embeddings, model.attention_modules[0]
    embeddings.patch_embeddings.projection.weight.data[0] = 1 / (3 * 16 * 16)
    attention.key.weight.data[0, 0] = 10.0
    attention.query.bias.data[0] = 1.0
    return model.eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("w") / "world"
    (root / "images").mkdir(parents=True)
    scenes, examples = [], []
    for name, ((width, height), (row, column)) in PLANTED.items():
        pixels = np.full((height, width, 3), 127, dtype=np.uint8)
        pixels[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255
        Image.fromarray(pixels).save(root / f"images/{name}.png")
        box = (16.0 * column, 16.0 * row, 16.0 * column + 16, 16.0 * row + 16)
        lamp = SceneObject(3, "lamp", [], box, 256)
        scenes.append(Scene(name, f"images/{name}.png", width, height, "test", [lamp]))
        for n, text in enumerate(("Where is the lamp?", "What color is the lamp?")):
            start = text.index("the lamp")
            phrase = Phrase(start, start + 8, [3])
            examples.append(Example(f"{name}_{n}", name, text, [phrase], [], ["left"] * 10))
    write_scenes(root / "scenes.jsonl", scenes)
    write_examples(root / "questions.jsonl", examples)
    return read_corpus(root, "questions")


def task_of(corpus):
    task = VqaDump(batch_size=2)
    task.prepare(corpus, None, VOCAB, CONFIG)
    return task


@pytest.mark.parametrize("backend", ["fused", "materialised"])
def test_maps_and_masses_land_on_the_planted_patch(corpus, tmp_path, backend):
    statistics = ["mass", "entropy", "head_norm", "attn"]
    settings = DumpSettings(statistics, backend, check=False)
    torch.manual_seed(7)
    dump(
        task_of(corpus),
        bright_model(),
        settings,
        tmp_path / "o",
        tmp_path / "w",
        model_name="m",
        config_hash="h",
    )
    with (
        AttentionStore(tmp_path / "o/attention.h5") as maps,
        StatisticsStore(tmp_path / "o/statistics.h5") as sums,
    ):
        assert sums.groups == {"sequence": GROUPS}
        assert len(maps.ids) == 6
        for id in maps.ids:
            (width, height), (row, column) = PLANTED[id.split("_")[0]]
            axis = maps.axis(id, "sequence")
            assert patch_grid(axis) == (height // 16, width // 16)
            for entry in word_maps(maps.read(id, "joint"), axis):
                grid = np.array(entry["map"])[0]
                assert np.unravel_index(grid.argmax(), grid.shape) == (row, column), (id, entry["word"])
                assert grid.max() > 0.95
            example = next(e for e in corpus.examples if e.id == id)
            found = measure(read_question(sums, example, corpus.scene(example)))
            value, chance = found["asked", "content words"]
            assert value.item() > 0.95
            assert chance == pytest.approx(256 / (width * height))
            assert found["mass", "text → image"][0].item() > 0.95


def test_shown_questions_are_right_and_neither_tiny_nor_huge(corpus, tmp_path):
    task = task_of(corpus)
    given = {e.id: "left" if e.image_id == "tall" else "right" for e in corpus.examples}
    assert [(e.id, how) for e, how in choose(task, given, ["where", "why"])] == [("tall_0", BY_RULE)]
    wrong = dict.fromkeys(given, "right")  # nothing is answered correctly: an example is shown all the same
    assert [e.id for e, _ in choose(task, wrong, ["what color"])] == ["square_1"]
    # The second group with questions shows a random one, regardless of the answers.
    drawn = [choose(task, given, ["where", "why", "what color"], seed)[1] for seed in range(12)]
    assert {e.id for e, _ in drawn} == {"square_1", "wide_1", "tall_1"} and {h for _, h in drawn} == {
        AT_RANDOM
    }
    assert choose(task, given, ["where", "what color"], 3)[1] == drawn[3]
    with pytest.raises(AtlasError, match="name other groups"):
        choose(task, given, ["why"])
    write_jsonl(tmp_path / "a.jsonl", [{"id": i, "answer": a} for i, a in given.items()])
    settings = DumpSettings(["mass", "entropy"], check=False)
    dump_questions(
        task,
        bright_model(),
        settings,
        ["where"],
        tmp_path / "a.jsonl",
        tmp_path / "o",
        tmp_path / "w",
        model_name="m",
        config_hash="h",
        device="cpu",
    )
    write_shown(tmp_path / "o/attention.h5", corpus, given, tmp_path)
    import json

    (shown,) = json.loads((tmp_path / "shown.json").read_text())["questions"]
    assert shown["chosen"] == BY_RULE
    assert shown["question"] == "Where is the lamp?" and shown["boxes"] == [[0.0, 48.0, 16.0, 64.0]]
    assert shown["size"] == [32, 80] and [m["word"] for m in shown["maps"]][:2] == ["[CLS]", "where"]
