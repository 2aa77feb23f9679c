"""Readers of bottom-up features: archives of each published layout come out as features.h5."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from conftest import ROOT
from hydra.utils import instantiate
from vision_archives import (
    FULL,
    WITH_CLASSES,
    D,
    archive,
    check,
    convert,
    detected,
    write_tsv,
    write_vocabularies,
)
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.regions.archives import BottomUpH5, BottomUpNpz
from attention_atlas.regions.bottom_up_tsv import BottomUpTSV
from attention_atlas.regions.imported import clean_boxes
from attention_atlas.workflow.compose import compose

CONF = Path(__file__).parent.parent / "conf"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return draw_world(tmp_path_factory.mktemp("world"), {"train": 3}, size=48)


@pytest.fixture
def vocab(tmp_path: Path) -> dict[str, Any]:
    return write_vocabularies(tmp_path)


def test_tsv_with_classes(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    # Images of other data sets may be in the same file.
    path = write_tsv(tmp_path / "f.tsv", {"other": detected(9, 2), **images}, WITH_CLASSES)
    check(convert(BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, **vocab), world, tmp_path), images)


def test_tsv_in_parts_with_other_ids_and_without_classes(world: Corpus, tmp_path: Path) -> None:
    columns = ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
    images = archive(world)
    renamed = [{f"room_{k}.jpg": v} for k, v in images.items()]
    paths = [str(write_tsv(tmp_path / f"{i}.tsv", part, columns)) for i, part in enumerate(renamed)]
    source = BottomUpTSV(paths=paths, image_key="room_{image_id}.jpg", dim=D, regions=3)
    file = convert(source, world, tmp_path)
    check(file, images, classes=False)
    with pytest.raises(AtlasError, match="labels: the file has none"):
        file.descriptions(file.image_ids[0])


def test_h5_with_a_group_per_image(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for image_id, arrays in images.items():
            for name, value in arrays.items():
                h5[f"{image_id}/{name}"] = value
    check(convert(BottomUpH5(path=str(tmp_path / "a.h5"), names=FULL, **vocab), world, tmp_path), images)


@pytest.mark.parametrize("by_file", ["list", "object", None])
def test_h5_padded(world: Corpus, vocab: dict[str, Any], tmp_path: Path, by_file: str | None) -> None:
    images = archive(world)
    ids = list(images)
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for name in FULL:
            shape = (3, 5, *images[ids[0]][name].shape[1:])
            h5[name] = np.full(shape, 7, images[ids[0]][name].dtype)  # padding must not come through
            for i, arrays in enumerate(images.values()):
                h5[name][i, : len(arrays[name])] = arrays[name]
        h5["n"] = [len(a["boxes"]) for a in images.values()]
        h5["image_id"] = ids
    named: dict[str, Any] = {"ids": "image_id"}
    if by_file:
        value: Any = ids if by_file == "list" else {k: i for i, k in reversed(list(enumerate(ids)))}
        (tmp_path / "ids.json").write_text(json.dumps(value))
        named = {"ids_file": str(tmp_path / "ids.json")}
    names = {**FULL, "count": "n"}
    source = BottomUpH5(path=str(tmp_path / "a.h5"), names=names, **named, **vocab)
    check(convert(source, world, tmp_path), images)


def test_h5_adaptive(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    ends = np.cumsum([len(a["boxes"]) for a in images.values()])
    with h5py.File(tmp_path / "a.h5", "w") as h5:
        for name in FULL:
            h5[name] = np.concatenate([a[name] for a in images.values()])
        h5["pos_boxes"] = np.stack([np.r_[0, ends[:-1]], ends], 1)
        h5["image_id"] = list(images)
        h5["w"] = h5["h"] = [48, 48, 48]
    names = {**FULL, "width": "w", "height": "h"}
    source = BottomUpH5(path=str(tmp_path / "a.h5"), names=names, ids="image_id", **vocab)
    check(convert(source, world, tmp_path), images)


@pytest.mark.parametrize("apart", [False, True])
def test_npz_per_image(world: Corpus, vocab: dict[str, Any], tmp_path: Path, apart: bool) -> None:
    images = archive(world)
    for folder in ("att", "box"):
        (tmp_path / folder).mkdir()
    for image_id, arrays in images.items():
        # A pickled object next to the arrays (written by some ports of the detector) is ignored.
        inside = {k: v for k, v in arrays.items() if k != "boxes"}
        if apart:
            np.save(tmp_path / "box" / f"{image_id}.npy", arrays["boxes"])
        else:
            inside["boxes"] = arrays["boxes"]
        np.savez(tmp_path / "att" / f"{image_id}.npz", info=np.array({"x": 1}, dtype=object), **inside)
    boxes = str(tmp_path / "box") if apart else None
    source = BottomUpNpz(folder=str(tmp_path / "att"), boxes_folder=boxes, names=FULL, **vocab)
    check(convert(source, world, tmp_path), images)


def test_relative_boxes_and_a_kept_background_class(
    world: Corpus, vocab: dict[str, Any], tmp_path: Path
) -> None:
    images = archive(world)
    shifted = {
        k: {**a, "boxes": a["boxes"] / np.float32(48), "objects_id": a["objects_id"] + 1}
        | {"attrs_id": a["attrs_id"] + 1}
        for k, a in images.items()
    }
    path = write_tsv(tmp_path / "f.tsv", shifted, WITH_CLASSES)
    source = BottomUpTSV(
        paths=[str(path)], columns=WITH_CLASSES, boxes_are="relative", first_class=1, **vocab
    )
    check(convert(source, world, tmp_path), images)


def test_boxes_are_cut_at_the_border_and_never_flat() -> None:
    boxes = np.array([[-5, 2, 30, 99], [10, 10, 10, 10], [40, 40, 39, 60], [1, 2, 3, 4.5]])
    expected = [[0, 2, 30, 50], [10, 10, 11, 11], [39, 40, 40, 50], [1, 2, 3, 4.5]]
    assert clean_boxes(boxes, (40, 50)).tolist() == expected


@pytest.mark.parametrize("name", ["bottom_up_tsv", "bottom_up_h5", "bottom_up_npz"])
def test_the_shipped_configs_read_an_archive(
    name: str, world: Corpus, vocab: dict[str, Any], tmp_path: Path
) -> None:
    """The YAML as it is, with only sizes and the lists' place changed."""
    images = archive(world)
    root = tmp_path / "corpus"
    shutil.copytree(world.root, root)
    (root / "features").mkdir()
    write_tsv(root / "features.tsv", images, WITH_CLASSES)
    with h5py.File(root / "features.hdf5", "w") as h5:
        for image_id, arrays in images.items():
            np.savez(
                root / "features" / f"{image_id}.npz",
                feat=arrays["features"],
                bbox=arrays["boxes"],
                **{k: v for k, v in arrays.items() if k not in ("features", "boxes")},
            )
            for key, value in arrays.items():
                h5[f"{image_id}/{key}"] = value
    overrides = [f"features={name}", f"data.root={root}", "features.objects=4", "features.attributes=2"]
    overrides += [f"features.dim={D}", "features.regions=3"]
    overrides += [f"features.{k}={vocab[k]}" for k in ("objects_vocab", "attributes_vocab")]
    config = compose(ROOT, "features", overrides)
    check(convert(instantiate(config.features), world, tmp_path), images)
