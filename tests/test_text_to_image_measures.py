"""Measures of generated images: closed forms by hand and against naive ones, facts, the classifier."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from attngan_world import corpus_of
from scipy.linalg import sqrtm

from attention_atlas.data.corpus import Example, Phrase, Scene, SceneObject
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.generation import frechet_distance, r_precision, score_of
from attention_atlas.models.image_classifier import ImageClassifier
from attention_atlas.models.run_folder import build_model, save_run
from attention_atlas.training.fact_reader import FactReader
from attention_atlas.training.facts import (
    ABSENT,
    PRESENT,
    PartColors,
    Presence,
    reading_from,
    reading_of,
    saved_reading,
)
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.tasks.image_classifier import UNSEEN, ImageClassifierTask, cells


def test_score_by_hand():
    assert score_of(np.eye(4)) == pytest.approx(4)  # sure of every image, all classes alike
    assert score_of(np.full((5, 3), 1 / 3)) == pytest.approx(1)
    p = np.array([[0.8, 0.2], [0.4, 0.6]])
    kl = [
        0.8 * math.log(0.8 / 0.6) + 0.2 * math.log(0.2 / 0.4),
        0.4 * math.log(0.4 / 0.6) + 0.6 * math.log(0.6 / 0.4),
    ]
    assert score_of(p) == pytest.approx(math.exp(sum(kl) / 2))


def test_frechet_distance_by_hand_and_by_scipy():
    a = np.array([[0.0], [2.0]])  # mean 1, variance 2
    b = np.array([[4.0], [12.0]])  # mean 8, variance 32
    assert frechet_distance(a, b) == pytest.approx(49 + 2 + 32 - 2 * math.sqrt(64))
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 6)) @ rng.normal(size=(6, 6)), rng.normal(size=(40, 6)) + 1
    one, two = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    naive = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(x, y) == pytest.approx(naive, rel=1e-6)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
    few = rng.normal(size=(3, 20))  # fewer images than units: singular covariances
    assert np.isfinite(frechet_distance(few, rng.normal(size=(4, 20))))
    with pytest.raises(AtlasError, match="two images or more"):
        frechet_distance(a, b[:1])


def test_r_precision_against_a_loop_and_its_chance():
    rng = np.random.default_rng(1)
    text = rng.normal(size=(40, 5))
    image = text + rng.normal(size=(40, 5)) * 1.5
    hits, chance = r_precision(image, text, candidates=40)
    unit_image, unit_text = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image, text))
    naive = [float(max(range(40), key=lambda t: i @ unit_text[t]) == n) for n, i in enumerate(unit_image)]
    assert hits.tolist() == naive and chance == 1 / 40
    few, chance = r_precision(image, text, candidates=5, seed=3)
    assert few.mean() > hits.mean() and chance == 0.2
    assert (few == r_precision(image, text, 5, 3)[0]).all()
    draws = [rng.normal(size=(2, 200, 5)) for _ in range(5)]
    random = np.mean([r_precision(a, b, 5, s)[0].mean() for s, (a, b) in enumerate(draws)])
    assert random == pytest.approx(0.2, abs=0.05)
    same, chance = r_precision(np.ones((10, 3)), np.ones((10, 3)), 4)
    assert np.allclose(same, chance)  # ties win no more than chance
    with pytest.raises(AtlasError, match="R-precision"):
        r_precision(image, text[:3])


def test_facts_of_parts(tmp_path):
    corpus = corpus_of(tmp_path)
    reading = reading_of(corpus, "train")
    assert isinstance(reading, PartColors) and reading.slots == {
        p: ["blue", "green", "red"] for p in ("coat", "hat")
    }
    example = corpus.examples[0]
    assert reading.stated(example) == {"hat": "blue", "coat": "blue"}
    assert reading.stated(corpus.examples[1]) == {"coat": "blue"}
    assert reading.seen(corpus.scene(example)) == {"hat": "blue", "coat": "blue"}
    assert reading.boxes(corpus.scene(example))["hat"] == (4, 2, 20, 14)
    again = reading_from(saved_reading(reading))
    assert again.slots == reading.slots and again.stated(example) == reading.stated(example)


def test_facts_of_presence():
    def scene(name, *items):
        objects = [
            SceneObject(n, label, [*words], (0, 0, 1, 1), 1) for n, (label, *words) in enumerate(items)
        ]
        return Scene(name, "", 8, 8, "train", objects)

    scenes = [
        scene("a", ("cube", "red", "small"), ("ring", "blue", "small")),
        scene("b", ("cube", "blue", "small")),
    ]
    reading = Presence.of(scenes)
    assert list(reading.slots) == ["red", "ring"]  # cube, blue and small are everywhere
    assert reading.seen(scenes[0]) == {"red": PRESENT, "ring": PRESENT}
    assert reading.seen(scenes[1]) == {"red": ABSENT, "ring": ABSENT}
    text = "two red rings and a red sky"
    example = Example("e", "a", text, [Phrase(0, 13, [0, 1], "group"), Phrase(18, 27, [], "miss")])
    assert reading.stated(example) == {"red": PRESENT, "ring": PRESENT}
    assert reading.stated(Example("f", "a", "a red sky", [Phrase(0, 9, [], "miss")])) == {}


def test_real_corpora_cannot_be_read(tmp_path):
    corpus = corpus_of(tmp_path, with_colors=False)
    assert isinstance(reading_of(corpus, "train"), Presence)
    for scene in corpus.scenes.values():
        scene.objects = []
    with pytest.raises(AtlasError, match="no annotated objects"):
        reading_of(corpus, "train")


def test_cells_of_boxes():
    box = torch.tensor([[[0.0, 0.5, 0.5, 1.0], [0.0, 0.0, 0.0, 0.0], [0.3, 0.0, 0.55, 0.2]]])
    found = cells(box, 4)[0].view(3, 4, 4).int().tolist()
    assert found[0] == [[0] * 4, [0] * 4, [1, 1, 0, 0], [1, 1, 0, 0]]
    assert found[1] == [[0] * 4] * 4
    assert found[2] == [[0, 1, 1, 0], [0] * 4, [0] * 4, [0] * 4]


def test_the_classifier_learns_and_reads(tmp_path):
    corpus = corpus_of(tmp_path / "corpus", 18, 9)
    corpus.scenes["train_0"].objects.pop()  # a coat that cannot be seen
    task = ImageClassifierTask(batch_size=9)
    task.prepare(corpus)
    assert task.targets["train"][0].tolist() == [UNSEEN, 0]
    turned = task.box_of(task.examples["val"][0], True)[1].tolist()
    assert turned == [12 / 32, 2 / 32, 28 / 32, 14 / 32]
    config = {
        "_target_": "attention_atlas.models.image_classifier.ImageClassifier",
        "channels": 8,
        "dim": 16,
    }
    torch.manual_seed(0)
    model = build_model(config, **task.model_sizes())
    settings = TrainSettings(epochs=12, validate_every=12, lr=5e-3, eps=1e-8, threads=1)
    weights, history = train(task, model, settings, tmp_path / "work")
    assert history[-1]["accuracy"] > 90 > history[-1]["chance"] + 30
    save_run(tmp_path / "run", weights, {"model": config, "train": {}, "sizes": task.model_sizes()}, history)
    task.save(tmp_path / "run")
    reader = FactReader(tmp_path / "run")
    examples = [e for e in corpus.split("test") if e.id.endswith("c0")]
    stated = [reader.reading.stated(e) for e in examples]
    probabilities, features = reader(task.images.batch(examples))
    hits = [v for row in reader.hits(probabilities, stated) for v in row.values()]
    assert np.mean(hits) > 0.9 and features.shape == (9, 16)
    # All nine combinations once: an image of another caption fits each fact in a third of the cases.
    rates = reader.rates(probabilities, stated)
    assert len(rates) == 6 and np.mean(list(rates.values())) == pytest.approx(1 / 3, abs=0.1)
    assert 2 < reader.score(probabilities) <= 3
    smaller, _ = reader(task.images.batch(examples).repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert np.allclose(smaller[0], probabilities[0], atol=1e-4)
    (tmp_path / "run" / "slots.json").write_text(
        '{"kind": "PartColors", "slots": ["hat"], "values": [["red"]]}'
    )
    with pytest.raises(AtlasError, match=r"slots\.json: does not fit"):
        FactReader(tmp_path / "run")


def test_bad_values():
    with pytest.raises(ConfigError, match="multiple of 8"):
        ImageClassifier([2], size=30)
    with pytest.raises(ConfigError, match="batch_size"):
        ImageClassifierTask(batch_size=1)
