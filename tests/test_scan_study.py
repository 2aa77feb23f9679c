"""Matching as a task and as a run: batches, training, the evaluator's rows, Flickr30k's reader."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attention_atlas.data.corpus import Corpus, Example, Phrase, Scene, SceneObject
from attention_atlas.data.flickr30k import read_flickr30k
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.retrieval import recalls
from attention_atlas.models.scan import Scan
from attention_atlas.regions.features_file import Regions
from attention_atlas.studies.alignment.scan import ScanEvaluator, categories, grounded, nouns
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.matching import MatchingTask, all_similarities, image_of

THINGS = ("cup", "lamp", "sofa", "vase", "desk", "sink")
REGIONS = 5


class Features:
    """As FeaturesFile: region n shows the image's thing n, one-hot with noise; the last region is padding."""

    dim = 8

    def __init__(self, shown):
        self.shown = shown

    def __contains__(self, image_id):
        return image_id in self.shown

    def read(self, image_id):
        rng = np.random.default_rng(int(image_id[1:]))
        features = rng.normal(1.0, 0.1, (REGIONS, self.dim)).astype(np.float16)
        gold = np.full(REGIONS, -1, np.int32)
        for n, thing in enumerate(self.shown[image_id]):
            features[n, thing] += 1
            gold[n] = n
        zeros = np.zeros(REGIONS)
        return Regions(
            image_id=image_id,
            features=features,
            boxes=np.tile(np.array([0, 0, 8, 8], np.float32), (REGIONS, 1)),
            size=(16, 12),
            count=REGIONS - 1,
            label=zeros.astype(np.int32),
            label_confidence=zeros.astype(np.float16),
            attribute=zeros.astype(np.int32) - 1,
            attribute_confidence=zeros.astype(np.float16),
            gold=gold,
        )


def world(images=60):
    """Each image shows two things; its captions name one or both, with the objects they mean."""
    rng = np.random.default_rng(0)
    scenes, examples, shown = {}, [], {}
    for i in range(images):
        name, split = f"i{i}", ("train", "train", "val", "test")[i % 4]
        pair = rng.permutation(len(THINGS))[:2].tolist()
        shown[name] = pair
        objects = [SceneObject(n, THINGS[t], [], (0, 0, 8, 8), 64) for n, t in enumerate(pair)]
        scenes[name] = Scene(name, f"images/{name}.png", 16, 12, split, objects)
        a, b = (THINGS[t] for t in pair)
        both = f"a {a} and the {b}"
        start = both.index(f"the {b}")
        examples.append(
            Example(f"{name}.0", name, both, [Phrase(0, 2 + len(a), [0]), Phrase(start, len(both), [1])])
        )
        examples.append(Example(f"{name}.1", name, f"one {b} here", [Phrase(0, 4 + len(b), [1])]))
    return Corpus(Path("world"), scenes, examples), Features(shown)


def prepared(**more):
    corpus, features = world()
    task = MatchingTask(**{"batch_size": 8, "standardise": True, "hardest_from": 9999, **more})
    task.prepare(corpus, features)
    return task


def model_for(task, seed=0):
    torch.manual_seed(seed)
    model = Scan(**task.model_sizes(), dim=16, embedding=8, embedding_init=1.0)
    task.start(model)
    return model


def test_an_epoch_shows_each_caption_once_and_no_image_twice_in_a_batch():
    task = prepared(batch_size=6)
    seen = []
    for batch in task.batches(0):
        seen += [tuple(row[row != 0].tolist()) for row in batch["ids_BT"]]
        features = batch["features_BND"].flatten(1)
        assert len(torch.unique(features, dim=0)) == len(features) == 6
    assert task.steps_per_epoch() == 10 and len(seen) == 60
    own = [(1, *ids, 2) for ids in task.train.ids]
    assert sorted(seen) == sorted(own)


def test_batches_depend_on_seed_and_epoch_alone_and_start_anywhere():
    task = prepared()
    whole = [b["ids_BT"] for b in task.batches(3)]
    for a, b in zip(whole[2:], task.batches(3, start=2), strict=True):
        assert torch.equal(a, b["ids_BT"])
    task.seed = 1
    assert not all(
        a.shape == b["ids_BT"].shape and torch.equal(a, b["ids_BT"]) for a, b in zip(whole, task.batches(3))
    )


def test_start_standardises_over_real_regions_only():
    task = prepared()
    model = model_for(task)
    features = task.regions.batch(task.train.images)
    real = features["features_BND"][features["regions_BN"]]
    assert torch.allclose(model.feature_mean_D, real.mean(0), atol=1e-4)
    assert torch.allclose(1 / model.feature_scale_D, real.std(0, unbiased=False), atol=1e-3)


def test_blocks_give_what_one_block_gives():
    task = prepared()
    model = model_for(task).eval()
    captions = task.captions(task.corpus.split("train"))
    whole = all_similarities(model, captions, 1 << 30)
    assert whole.shape == (30, 60)
    assert np.allclose(all_similarities(model, captions, 1), whole, atol=1e-6)


def test_it_learns_and_words_look_at_what_they_mean(tmp_path):
    task = prepared()
    settings = TrainSettings.read(
        {"epochs": 12, "lr": 0.01, "betas": [0.9, 0.999], "clip_norm": 2.0, "validate_every": 12}
    )
    weights, history = train(task, model_for(task), settings, tmp_path)
    assert history[-1]["Rsum"] == pytest.approx(
        sum(history[-1][f"R@{k} {d}"] for k in (1, 5, 10) for d in ("sentence", "image"))
    )
    model = model_for(task)
    model.load_state_dict(weights)
    result = ScanEvaluator(shown=3)(model, task).check()
    assert result.scores["R@5 image"] > 1.8 * result.scores["R@5 image chance"]
    mass, chance = (np.mean([r[k] for r in result.grounding]) for k in ("mass", "chance"))
    assert chance == pytest.approx(1 / (REGIONS - 1)) and mass > 1.8 * chance
    untrained = ScanEvaluator(shown=3)(model_for(task), task)
    assert np.mean([r["mass"] for r in untrained.grounding]) < mass - 0.2
    assert [s.example for s in untrained.shown] == [s.example for s in result.shown]


def test_rows_add_up_to_the_scores():
    task = prepared()
    result = ScanEvaluator(shown=2)(model_for(task), task).check()
    captions = task.captions(task.corpus.split("test"))
    numbers, _ = recalls(all_similarities(model_for(task).eval(), captions), image_of(captions))
    assert result.scores == numbers
    for metric, queries in (
        ("R@1 sentence", 15),
        ("R@10 image", 30),
        ("Rsum sentence", 15),
        ("Rsum image", 30),
        ("Rsum", 15),
    ):
        values = {}
        for row in result.examples:
            if row["metric"] == metric:
                values.setdefault(row["example"], set()).add(row["value"])
                assert row["image"] == row["example"].split(".")[0]
        assert len(values) == queries and all(len(v) == 1 for v in values.values())
        assert np.mean([v.pop() for v in values.values()]) == pytest.approx(result.scores[metric])
    groups = [(r["category"], r["nouns"]) for r in result.examples if r["metric"] == "Rsum image"]
    assert {n for _, n in groups} == {1, 2} and {c for c, _ in groups} <= set(THINGS) and len(groups) == 60
    assert {r["nouns"] for r in result.examples if r["metric"] == "Rsum sentence"} == {2}
    shown = result.shown[0]
    assert shown.attn_WN.shape == (5, REGIONS - 1) and shown.words == shown.text.split()
    assert shown.example.endswith(".0") and shown.image.startswith("world/images/") and shown.size == (16, 12)


def test_grounding_by_hand():
    features = world()[1]
    example = Example("x", "i0", "the cup and two lamps", [Phrase(0, 7, [0]), Phrase(12, 21, [0, 1])])
    weights = np.array([[0, 0, 0, 1], [0.7, 0.1, 0.1, 0.1], [1, 0, 0, 0], [0.2, 0.3, 0.5, 0], [0, 0, 1, 0]])
    rows = list(grounded(example, weights, SimpleNamespace(features=features)))
    assert [(r["word"], round(r["mass"], 6), r["chance"], r["top1"]) for r in rows] == [
        ("cup", 0.7, 0.25, 1),
        ("two", 0.5, 0.5, 0),
        ("lamps", 0.0, 0.5, 0),
    ]


def test_nouns_and_categories():
    assert nouns([Example("a", "i0", "a cup", [Phrase(0, 5, [0])]), Example("b", "i0", "so it is")]) == [1, 0]
    assert nouns([Example("a", "i0", "A dog chases the old cat."), Example("b", "i0", "It runs.")]) == [2, 0]
    scene = world()[0].scenes["i0"]
    assert categories(scene) == sorted(o.label for o in scene.objects)
    scene.category = "office"
    assert categories(scene) == ["office"]


def test_bad_input_is_one_line():
    corpus, features = world()
    for make, message in (
        (lambda: MatchingTask(batch_size=1), "batch_size: must be at least 2"),
        (lambda: MatchingTask(batch_size=99).prepare(corpus, features), "30 images, fewer than .* 99"),
        (
            lambda: MatchingTask(select_on="extra", batch_size=4).prepare(corpus, features),
            "'extra' has no example",
        ),
        (lambda: ScanEvaluator(images=0), "images: must be at least 1 or null"),
        (lambda: ScanEvaluator(split="extra")(model_for(prepared()), prepared()), "'extra' has no caption"),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
    assert issubclass(ConfigError, AtlasError)


def karpathy(tmp_path, **changes):
    rows = [
        {
            "filename": f"{100 + i}.jpg",
            "split": split,
            "imgid": i,
            "sentences": [
                {
                    "raw": f"Two dogs, number {i}.",
                    "tokens": ["two", "dogs", "number", str(i)],
                    "sentid": 2 * i,
                },
                {"raw": "They run.", "tokens": ["they", "run"], "sentid": 2 * i + 1},
            ],
        }
        for i, split in enumerate(("train", "val", "test", "train"))
    ]
    rows[0].update(changes)
    path = tmp_path / "dataset_flickr30k.json"
    path.write_text(json.dumps({"images": rows, "dataset": "flickr30k"}))
    (tmp_path / "images").mkdir(exist_ok=True)
    for i in range(4):
        Image.new("RGB", (20, 10 + i)).save(tmp_path / "images" / f"{100 + i}.jpg")
    return path


def test_flickr30k(tmp_path):
    path = karpathy(tmp_path)
    corpus = read_flickr30k(path, tmp_path / "images")
    assert list(corpus.scenes) == ["100", "101", "102", "103"] and len(corpus.examples) == 8
    assert (corpus.scenes["103"].width, corpus.scenes["103"].height) == (20, 13)
    assert [e.id for e in corpus.split("val")] == ["flickr2", "flickr3"]
    assert corpus.examples[0].text == "Two dogs, number 0."
    tokens = read_flickr30k(path, "none", text="tokens", require_images=False, limit=1)
    assert list(tokens.scenes) == ["100", "101", "102"] and tokens.examples[0].text == "two dogs number 0"
    for make, message in (
        (lambda: read_flickr30k(tmp_path / "x.json", tmp_path), "x.json: no such file"),
        (lambda: read_flickr30k(path, tmp_path, text="odd"), "text: 'odd'"),
        (lambda: read_flickr30k(karpathy(tmp_path, split="dev"), tmp_path), "image 1: split: 'dev'"),
        (lambda: read_flickr30k(karpathy(tmp_path, filename="101.jpg"), tmp_path / "images"), "occurs twice"),
        (lambda: read_flickr30k(karpathy(tmp_path, sentences=[{"raw": "x"}]), tmp_path / "images"), "sentid"),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            make()
        assert "\n" not in str(error.value)
