"""Vocabulary, batches, schedules and settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from captioning_world import config, corpus, write_features

from attention_atlas.data.corpus import Example
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import BOS, EOS, PAD, UNK, Vocabulary
from attention_atlas.models.run_folder import build_model
from attention_atlas.regions.features_file import FeaturesFile, FeaturesWriter
from attention_atlas.training.batches import pooled
from attention_atlas.training.by_image import TurningTexts, per_text
from attention_atlas.training.captions import Captions, RegionCache, tokens
from attention_atlas.training.run import build_task, run_config
from attention_atlas.training.settings import Schedule, TrainSettings


def test_vocabulary_by_hand() -> None:
    vocab = Vocabulary.build([["b", "a", "b", "c"], ["a", "b", "d"]], min_count=2)
    assert vocab.words == ["b", "a"]  # by frequency, then alphabetically
    assert len(vocab) == 6
    assert vocab.encode(["a", "c", "b"]) == [5, UNK, 4]
    assert vocab.decode([BOS, 5, UNK, PAD, 4, EOS, 4]) == ["a", "<unk>", "b"]
    assert Vocabulary.build([["z", "y"]]).words == ["y", "z"]


def test_vocabulary_file(tmp_path: Path) -> None:
    vocab = Vocabulary(["a", "é", "it's"])
    vocab.save(tmp_path / "vocab.json")
    assert Vocabulary.load(tmp_path / "vocab.json").words == vocab.words
    with pytest.raises(AtlasError, match=r"none.json: no such file"):
        Vocabulary.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(AtlasError, match=r"bad.json: not JSON"):
        Vocabulary.load(tmp_path / "bad.json")
    (tmp_path / "other.json").write_text('{"words": []}')
    with pytest.raises(AtlasError, match="schema"):
        Vocabulary.load(tmp_path / "other.json")
    with pytest.raises(AtlasError, match="'a' occurs twice"):
        Vocabulary(["a", "b", "a"])
    with pytest.raises(AtlasError, match="no word occurs 3 times"):
        Vocabulary.build([["a"]], min_count=3)


def test_noam_by_hand() -> None:
    noam = Schedule("noam", warmup=100, factor=2.0, dim=64)
    # 2 · 64^-0.5 = 0.25; the peak is at the end of the warm-up: 0.25 · 100^-0.5.
    assert noam.scale(100, 0) == pytest.approx(0.025)
    assert noam.scale(25, 0) == pytest.approx(0.025 / 4)
    assert noam.scale(400, 0) == pytest.approx(0.025 / 2)
    # The published run: dim 512, warm-up 10,000, peak 4.4e-4.
    assert Schedule("noam", 10_000, 1.0, 512).scale(10_000, 0) == pytest.approx(4.4e-4, rel=0.01)


def test_linear_and_constant_by_hand() -> None:
    linear = Schedule("linear", warmup=2)
    assert [linear.scale(s, 6) for s in range(1, 7)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5, 0.25])
    assert [Schedule("constant", 4).scale(s, 9) for s in (1, 4, 9)] == [0.25, 1.0, 1.0]


def test_settings_name_what_is_wrong() -> None:
    good = TrainSettings.read({"epochs": 3, "betas": [0.9, 0.99], "schedule": {"name": "noam", "dim": 4}})
    assert (good.epochs, good.betas, good.schedule.dim) == (3, (0.9, 0.99), 4)
    with pytest.raises(ConfigError, match="epoch: no such setting; did you mean 'epochs'"):
        TrainSettings.read({"epoch": 3})
    with pytest.raises(ConfigError, match=r"schedule: warm_up: .*'warmup'"):
        TrainSettings.read({"schedule": {"warm_up": 3}})
    with pytest.raises(ConfigError, match="'cosine' is unknown"):
        TrainSettings.read({"schedule": {"name": "cosine"}})
    with pytest.raises(ConfigError, match="accumulate: must be at least 1"):
        TrainSettings.read({"accumulate": 0})
    for wrong, message in (
        (
            {"epochs": "many"},
            "^train: epochs: Value 'many' of type 'str' could not be converted to Integer",
        ),
        ({"schedule": {"warmup": 1.5}}, "^train: schedule: warmup: Value '1.5' of type 'float'"),
        ({"betas": 0.9}, "^train: betas: "),
        ({"lr_scales": {"encoder.": "low"}}, "^train: lr_scales: encoder: : Value 'low'"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            TrainSettings.read(wrong)
        assert "\n" not in str(caught.value)


@pytest.fixture
def captions(tmp_path: Path) -> Captions:
    data = corpus()
    features = FeaturesFile(write_features(tmp_path / "f.h5", data))
    train = data.split("train")
    vocab = Vocabulary.build(tokens(e.text) for e in train)
    return Captions(train, vocab, RegionCache(features), max_words=20)


def test_a_batch_holds_words_between_bos_and_eos_and_relative_boxes(captions: Captions) -> None:
    batch = captions.batch([1, 0])
    # Text 1 has 13 words, full stops included, and text 0 four more.
    ids = batch["ids_BT"]
    assert ids.shape == (2, 19)
    assert ids[:, 0].tolist() == [BOS, BOS]
    assert ids[0, 14:].tolist() == [EOS] + [PAD] * 4
    for row, i in zip(ids.tolist(), [1, 0]):
        n = len(captions.ids[i])
        assert row[1 : n + 1] == captions.ids[i]
        assert row[n + 1] == EOS
        assert set(row[n + 2 :]) <= {PAD}
    assert batch["features_BND"].dtype == torch.float32
    assert torch.allclose(batch["boxes_BN4"][0, 1], torch.tensor([0.45, 0.125, 0.8, 0.75]))
    assert batch["regions_BN"].tolist() == [[True, True, False]] * 2


def test_an_epoch_has_every_example_once_in_a_reproducible_order(captions: Captions) -> None:
    order = captions.order(5, seed=1, epoch=0)
    assert sorted(i for part in order for i in part) == list(range(24))
    assert order == captions.order(5, seed=1, epoch=0)
    assert order != captions.order(5, seed=1, epoch=1)
    assert order != captions.order(5, seed=2, epoch=0)


def test_batches_hold_texts_of_like_length(captions: Captions) -> None:
    def padding(batches: list[list[int]]) -> int:
        sizes = [[len(captions.ids[i]) for i in part] for part in batches]
        return sum(max(part) * len(part) - sum(part) for part in sizes)

    shuffled = pooled(len(captions), 4, [0, 0], lambda i: len(captions.ids[i]), pool=1)
    assert padding(captions.order(4, 0, 0)) < padding(shuffled) / 3


def turning(tmp_path: Path, **settings: int) -> tuple[TurningTexts, Vocabulary]:
    """Two images, with three texts and one, and with captions."""
    data = corpus()
    features = FeaturesFile(write_features(tmp_path / "f.h5", data))
    texts = {"room000": ["A lamp.", "A desk.", "A rug."], "room001": ["A plant"]}
    captions = {"room000": ["lamp", "desk"], "room001": ["plant"], "room002": ["lamp"]}
    examples, first = (
        [Example(f"{i}.{n}", i, text) for i, own in of.items() for n, text in enumerate(own)]
        for of in (texts, captions)
    )
    vocab = Vocabulary.build(tokens(e.text) for e in examples)
    return TurningTexts(examples, vocab, RegionCache(features), 20, first=first, **settings), vocab


def words_of(turning: tuple[TurningTexts, Vocabulary], epoch: int) -> list[list[str]]:
    """The texts of each batch of one image."""
    texts, vocab = turning
    return sorted(
        sorted(" ".join(vocab.decode(texts.ids[row])) for row in batch) for batch in texts.order(1, 0, epoch)
    )


def test_every_epoch_takes_the_next_texts_of_each_image(tmp_path: Path) -> None:
    texts = turning(tmp_path, texts=2)
    found = [words_of(texts, epoch) for epoch in range(3)]
    assert found[0] == [["a desk .", "a lamp ."], ["a plant"]]
    assert found[1] == [["a lamp .", "a rug ."], ["a plant"]]
    assert found[2] == [["a desk .", "a rug ."], ["a plant"]]


def test_the_first_epochs_take_other_texts(tmp_path: Path) -> None:
    texts = turning(tmp_path, texts=1, first_epochs=2)
    assert words_of(texts, 0) == words_of(texts, 1) == [["desk", "lamp"], ["plant"]]
    assert words_of(texts, 2) == [["a lamp ."], ["a plant"]]
    assert words_of(texts, 3) == [["a desk ."], ["a plant"]]


def test_texts_of_one_image_share_its_regions(tmp_path: Path) -> None:
    texts, _ = turning(tmp_path, texts=2)
    batch = texts.batch([0, 3, 1])
    assert batch["image_B"].tolist() == [0, 1, 0] and len(batch["features_BND"]) == 2
    single = per_text(batch)
    assert "image_B" not in single and torch.equal(single["ids_BT"], batch["ids_BT"])
    for name in ("features_BND", "boxes_BN4", "regions_BN"):
        assert torch.equal(single[name], batch[name][[0, 1, 0]])


def test_features_are_standardised_over_the_training_regions(tmp_path: Path) -> None:
    data = corpus()
    cfg = config()
    cfg.model.standardised = True
    with FeaturesFile(write_features(tmp_path / "f.h5", data)) as features:
        task = build_task(cfg)
        task.prepare(data, features)
        model = build_model(run_config(cfg)[0], task.vocab, **task.model_sizes())
        task.start(model)
        batch = task.train.regions.batch([e.image_id for e in data.split("train")])
    seen = model.standardise(batch["features_BND"])[batch["regions_BN"]]
    assert torch.allclose(seen.mean(0), torch.zeros(8), atol=1e-5)
    assert torch.allclose(seen.std(0, unbiased=False), torch.ones(8), atol=1e-4)
    assert not torch.allclose(batch["features_BND"][batch["regions_BN"]].mean(0), torch.zeros(8), atol=1e-2)


def test_pooled_images_differ_before_the_first_update(tmp_path: Path) -> None:
    data = corpus()
    means = {}
    for standardised in (False, True):
        cfg = config("lstm")
        cfg.model.standardised = standardised
        with FeaturesFile(write_features(tmp_path / "f.h5", data)) as features:
            task = build_task(cfg)
            task.prepare(data, features)
            torch.manual_seed(0)
            model = build_model(run_config(cfg)[0], task.vocab, **task.model_sizes())
            task.start(model)
            batch = task.train.regions.batch([e.image_id for e in data.split("train")])
        with torch.no_grad():
            pooled_BD = model.encode(batch)["pooled_BD"]
        means[standardised] = float((pooled_BD.mean(0) ** 2).sum() / (pooled_BD**2).mean(0).sum())
    # The share of the power that all images have in common.
    assert means[True] < 0.5 < means[False]


def test_bad_regions_are_named(tmp_path: Path) -> None:
    data = corpus()
    path = write_features(tmp_path / "f.h5", data)
    features = FeaturesFile(path)
    vocab = Vocabulary.build([["a"]])
    with pytest.raises(AtlasError, match="no example"):
        Captions([], vocab, RegionCache(features), 5)
    with FeaturesWriter(tmp_path / "g.h5", dim=8, regions=3, labels=["x"], source="s") as writer:
        writer.add("room000", features=[[0.0] * 8], boxes=[[0, 0, 1, 1]], size=(5, 5), label=[0])
    with pytest.raises(AtlasError, match="image 'room001' is missing"):
        Captions(data.examples, vocab, RegionCache(FeaturesFile(tmp_path / "g.h5")), 5)
    regions = features.read("room000")
    regions.features[0, 0] = float("nan")

    class Broken:
        def read(self, image_id: str) -> object:
            return regions

    with pytest.raises(AtlasError, match="'room000': features are not finite"):
        RegionCache(Broken()).get("room000")  # type: ignore[arg-type]


def test_the_cache_keeps_its_limit(tmp_path: Path) -> None:
    data = corpus()
    features = FeaturesFile(write_features(tmp_path / "f.h5", data))
    ids = [e.image_id for e in data.examples[:4]]
    none, one = RegionCache(features, keep_bytes=0), RegionCache(features, keep_bytes=150)
    for cache in (none, one):
        assert torch.equal(cache.batch(ids)["features_BND"], RegionCache(features).batch(ids)["features_BND"])
    assert (len(none._kept), len(one._kept)) == (0, 1)
