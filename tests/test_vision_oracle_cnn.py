"""The region CNN learns a drawn world, resumes after a kill to the same bytes, and reports what it lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from PIL import Image
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus, write_examples, write_scenes
from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.regions import region_cnn
from attention_atlas.regions.classifier import predict
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.regions.oracle_cnn import OracleCNN
from attention_atlas.regions.proposals import ProposalOracle
from attention_atlas.regions.quality import main as quality_main
from attention_atlas.regions.quality import measure_features
from attention_atlas.regions.region_cnn import RegionCNNConfig, build_net, mirror, places, two_views
from attention_atlas.workflow.compose import compose


def source(epochs: int = 6, **changes: object) -> OracleCNN:
    net = RegionCNNConfig(
        dim=24, channels=(8, 16, 24), crop=16, epochs=epochs, images_per_step=4, regions_per_image=10
    )
    return OracleCNN(ProposalOracle(regions=12), net, block=10, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return draw_world(tmp_path_factory.mktemp("world"), {"train": 60, "val": 15})


@pytest.fixture(scope="module")
def features(world: Corpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features")
    source(20).extract(world, folder / "f.h5", folder / "work", "cpu")
    return folder / "f.h5"


def test_learns_labels_and_attributes(world: Corpus, features: Path) -> None:
    file = FeaturesFile(features)
    assert file.labels == ["ball", "box", "wedge"] and file.attributes == ["blue", "green", "red"]
    assert file.image_ids == list(world.scenes) and file.source == "proposal-oracle+region-cnn"
    quality = measure_features(file, world, "val")
    assert quality["images"] == 15 and quality["regions"] > 80
    assert quality["label_accuracy"] > quality["majority_label"] + 0.15
    assert quality["attribute_accuracy"] > 0.95
    row = file.read("val000")
    assert row.count == 12 and (row.features >= 0).all() and row.features.std() > 0
    words = file.descriptions("val000")
    assert len(words) == 12 and set(" ".join(words).split()) <= {*file.labels, *file.attributes}


def test_killed_and_resumed_gives_the_same_bytes(
    world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, resumed = tmp_path / "whole.h5", tmp_path / "resumed.h5"
    source(2).extract(world, whole, tmp_path / "a", "cpu")
    work = tmp_path / "b"

    # Killed in the middle of the second epoch ...
    real = region_cnn.two_views
    calls = {"count": 0}

    def dies(*args: object) -> np.ndarray:
        calls["count"] += 1
        if calls["count"] == 85:  # 60 images per epoch
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("attention_atlas.regions.oracle_cnn.two_views", dies)
    with pytest.raises(KeyboardInterrupt):
        source(2).extract(world, resumed, work, "cpu")
    assert (work / "region_cnn.pt").exists() and not resumed.exists()
    # ... and again in the middle of the extraction (60 more for the second epoch, then 25 images).
    calls["count"] = 0
    with pytest.raises(KeyboardInterrupt):
        source(2).extract(world, resumed, work, "cpu")
    assert sorted(p.name for p in (work / "blocks").iterdir()) == ["0000000.npz", "0000010.npz"]
    monkeypatch.undo()
    source(2).extract(world, resumed, work, "cpu")
    assert sha256(whole) == sha256(resumed)


def test_two_views_by_hand() -> None:
    # Left half black, right half white; the box is a white part, its surroundings reach into the black.
    image = Image.new("RGB", (40, 20))
    image.paste((255, 255, 255), (20, 0, 40, 20))
    views = two_views(image, np.array([[22.0, 5, 30, 13], [0, 0, 40, 20]]), 8)
    assert views.shape == (2, 6, 8, 8) and views.dtype == np.uint8
    assert (views[0, :3] == 255).all()
    # Widened box is x 18..34: an eighth of it, one column, is black.
    assert (views[0, 3:, :, 1:] > 200).all() and (views[0, 3:, :, 0] < 100).all()
    # The whole image cannot be widened.
    assert np.array_equal(views[1, :3], views[1, 3:])
    assert (views[1, 0, :, :3] == 0).all() and (views[1, 0, :, 5:] == 255).all()


def test_mirrored_regions_are_those_of_the_mirrored_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (20, 40, 3), dtype=np.uint8)
    box, flipped = np.array([[4.0, 5, 14, 13]]), np.array([[26.0, 5, 36, 13]])
    crops, where = mirror(two_views(Image.fromarray(image), box, 8), places(box, (40, 20)))
    assert np.allclose(places(box, (40, 20)), [[0.1, 0.25, 0.35, 0.65, 0.25, 0.4]])
    again = two_views(Image.fromarray(image[:, ::-1].copy()), flipped, 8)
    assert np.abs(crops.astype(int) - again).max() <= 1
    assert np.allclose(where, places(flipped, (40, 20)))


def test_predict_matches_the_net_row_by_row() -> None:
    torch.manual_seed(0)
    net = build_net(RegionCNNConfig(dim=6, channels=(4, 4, 4), crop=8), labels=3, attributes=2)
    crops = np.random.default_rng(0).integers(0, 255, (5, 6, 8, 8), dtype=np.uint8)
    where = np.random.default_rng(1).random((5, 6), dtype=np.float32)
    rows = predict(net, [crops[:2], crops[2:]], [where[:2], where[2:]], "cpu")
    assert [len(r.label) for r in rows] == [2, 3]
    for i in range(5):
        with torch.no_grad():
            f, y, a = net(torch.from_numpy(crops[i : i + 1]), torch.from_numpy(where[i : i + 1]))
        chance = y.softmax(-1)[0, :3]  # the last class is the background
        row, j = (rows[0], i) if i < 2 else (rows[1], i - 2)
        assert np.allclose(row.features[j], f[0], atol=2e-3)
        assert row.label[j] == int(chance.argmax())
        assert np.isclose(row.label_confidence[j], float(chance.max()), atol=1e-5)
        assert row.attribute[j] == int(a[0].argmax())
        assert np.isclose(row.attribute_confidence[j], float(a[0].sigmoid().max()), atol=1e-5)


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    out, work = tmp_path / "f.h5", tmp_path / "work"
    world = draw_world(tmp_path / "world", {"train": 4})
    image = world.image_path("train002")
    image.write_bytes(image.read_bytes()[:60])
    with pytest.raises(AtlasError, match=r"train002.png: is truncated"):
        source().extract(world, out, work, "cpu")
    image.unlink()
    with pytest.raises(AtlasError, match=r"train002.png: no such image"):
        source().extract(world, out, work, "cpu")
    Image.new("RGB", (10, 12)).save(image)
    with pytest.raises(AtlasError, match="is 10x12, but the scene has 64x64"):
        source().extract(world, out, work, "cpu")
    for scene in world.scenes.values():
        scene.objects = []
    with pytest.raises(AtlasError, match="no scene of split 'train' has objects"):
        source().extract(world, out, work, "cpu")
    assert not out.exists()


def test_quality_by_hand(world: Corpus, features: Path) -> None:
    """Recount two numbers from the file with plain loops."""
    file = FeaturesFile(features)
    right = total = 0
    seen, wanted = set(), set()
    for image_id, scene in world.scenes.items():
        if scene.split == "val":
            row = file.read(image_id)
            wanted |= {(image_id, o.id) for o in scene.objects}
            for gold, label in zip(row.gold, row.label):
                if gold >= 0:
                    total += 1
                    right += scene.object(int(gold)).label == file.labels[label]
                    seen.add((image_id, int(gold)))
    quality = measure_features(file, world, "val")
    assert quality["label_accuracy"] == right / total
    assert quality["recall"] == len(seen) / len(wanted)
    with pytest.raises(AtlasError, match="no region of split 'test'"):
        measure_features(file, world, "test")


def test_quality_prints_or_reports_errors(
    world: Corpus, features: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_scenes(world.root / "scenes.jsonl", world.scenes.values())
    write_examples(world.root / "descriptions.jsonl", [])
    assert quality_main([str(features), str(world.root)]) == 0
    printed = capsys.readouterr().out
    expected = measure_features(FeaturesFile(features), world, "val")
    assert f"label_accuracy       {expected['label_accuracy']:.3f}" in printed
    assert f"regions              {expected['regions']}" in printed
    assert quality_main([str(tmp_path / "none.h5"), str(world.root)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_shipped_config_gives_this_source() -> None:
    config = compose(ROOT, "features", ["features=rooms_cnn", "seed=3"])
    made = instantiate(config.features)
    assert isinstance(made, OracleCNN) and made.seed == made.proposals.seed == 3
    assert made.net.epochs == 4 and made.net.channels == (32, 64, 128)
    assert made.proposals == ProposalOracle(seed=3)
