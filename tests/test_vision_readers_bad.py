"""Readers of bottom-up features: one clear line for every kind of bad archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from vision_archives import FULL, WITH_CLASSES, D, archive, convert, write_tsv, write_vocabularies
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.archives import BottomUpH5, BottomUpNpz
from attention_atlas.regions.bottom_up_tsv import BottomUpTSV
from attention_atlas.regions.imported import read_vocabulary


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return draw_world(tmp_path_factory.mktemp("world"), {"train": 3}, size=48)


@pytest.fixture
def vocab(tmp_path: Path) -> dict[str, Any]:
    return write_vocabularies(tmp_path)


def damage(
    images: dict[str, dict[str, np.ndarray]], edit: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    return {k: (edit(a) if k == "train001" else a) for k, a in images.items()}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda a: {**a, "features": a["features"] * np.float32(np.nan)}, "'train001': features: not finite"),
        (lambda a: {**a, "boxes": a["boxes"] * np.float32(np.nan)}, "'train001': boxes: not finite"),
        (lambda a: {**a, "objects_id": a["objects_id"] + 4}, "'train001': label: index outside .* 4 labels"),
        (lambda a: {**a, "attrs_conf": a["attrs_conf"] * 19}, "attribute_confidence: not within 0..1"),
        (lambda a: {k: v[:0] for k, v in a.items()}, "line 2: num_boxes: 0 objects"),
        (lambda a: {**a, "features": a["features"].ravel()[:-1]}, "line 2: features: 44 bytes do not make 2"),
        (lambda a: {**a, "boxes": a["boxes"][:, :3]}, r"'train001': boxes: shape \(2, 3\)"),
        (lambda a: {**a, "objects_conf": np.tile(a["objects_conf"], 2)}, "objects_conf: 2 numbers per box"),
        (lambda a: {**a, "features": a["features"][:, :5]}, r"features: shape \(2, 5\), expected \(2, 6\)"),
    ],
)
def test_bad_tsv_values(
    world: Corpus, vocab: dict[str, Any], tmp_path: Path, edit: Any, message: str
) -> None:
    path = write_tsv(tmp_path / "f.tsv", damage(archive(world), edit), WITH_CLASSES)
    with pytest.raises(AtlasError, match=message) as caught:
        convert(BottomUpTSV(paths=[str(path)], columns=WITH_CLASSES, **vocab), world, tmp_path)
    assert "\n" not in str(caught.value) and not (tmp_path / "out.h5").exists()


def test_bad_tsv_files(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    path = write_tsv(tmp_path / "f.tsv", images, WITH_CLASSES)
    text = path.read_text()

    def attempt(message: str, kind: type[AtlasError] = AtlasError, **settings: Any) -> None:
        settings = {"paths": [str(path)], "columns": WITH_CLASSES, **vocab, **settings}
        with pytest.raises(kind, match=message):
            convert(BottomUpTSV(**settings), world, tmp_path)

    attempt(r"no such file", paths=[str(tmp_path / "none.tsv")])
    attempt(r"'colour' is unknown", ConfigError, columns=["colour"])
    attempt(r"'boxes' is missing", ConfigError, columns=["image_id", "num_boxes", "features"])
    attempt(
        r"line 1: has 10 columns, expected 6", columns=["image_id", *WITH_CLASSES[-3:], "image_w", "image_h"]
    )
    attempt(r"objects_vocab: has 4 names, expected 1600", objects=1600)
    attempt(r"boxes_are: 'feet' is unknown", ConfigError, boxes_are="feet")
    attempt(r"image 'xtrain000': not in the archive \(3 of 3", image_key="x{image_id}")
    path.write_text(text[: len(text) - 400])  # the last line has lost its end
    attempt(r"line 3: (has \d+ columns|features)")
    path.write_text(text + text.split("\n")[0] + "\n")
    attempt(r"image 'train000': image_id: occurs twice")
    path.write_text(text.replace("\t3\t", "\tthree\t"))
    attempt("line 1: num_boxes, image_w, image_h: not whole numbers")
    path.write_text(text.replace("=", "!"))
    attempt("not base64")
    path.write_bytes(bytes(range(128, 256)))
    attempt("not a text file")


def test_bad_h5(world: Corpus, vocab: dict[str, Any], tmp_path: Path) -> None:
    images = archive(world)
    path = tmp_path / "a.h5"

    def attempt(message: str, kind: type[AtlasError] = AtlasError, **settings: Any) -> None:
        with pytest.raises(kind, match=message):
            convert(BottomUpH5(**{"path": str(path), "names": FULL, **vocab, **settings}), world, tmp_path)

    attempt("no such file")
    path.write_bytes(b"not hdf5")
    attempt("not an HDF5 file")
    with h5py.File(path, "w") as h5:
        for name in FULL:
            h5[name] = np.concatenate([a[name] for a in images.values()])
    attempt("pos_boxes: is missing", ids="image_id")
    with h5py.File(path, "a") as h5:
        h5["pos_boxes"] = [[0, 3], [3, 5]]
    attempt("BottomUpH5: ids: name the data set of image ids", ConfigError)
    attempt("image_id: is missing; correct ids", ids="image_id")
    (tmp_path / "ids.json").write_text(json.dumps(list(images)))
    attempt("image 'train002': row 2 of 2 images", ids_file=str(tmp_path / "ids.json"))
    attempt("'boxen' is unknown", ConfigError, names={"boxen": "b"})
    with h5py.File(path, "w") as h5:
        for image_id, arrays in images.items():
            h5[f"{image_id}/features"], h5[f"{image_id}/boxes"] = arrays["features"], arrays["boxes"]
    attempt("objects_id: is missing, but has a vocabulary")


def test_npz_of_objects_is_refused_and_not_run(world: Corpus, tmp_path: Path) -> None:
    folder = tmp_path / "att"
    folder.mkdir()
    for image_id, arrays in archive(world).items():
        objects = np.array([None, arrays["features"]], dtype=object)
        np.savez(folder / f"{image_id}.npz", feat=objects, bbox=arrays["boxes"])
    with pytest.raises(AtlasError, match=r"train000.npz: contains pickled objects, which are not read"):
        convert(BottomUpNpz(folder=str(folder), dim=D, regions=3), world, tmp_path)
    (folder / "train000.npz").write_bytes(b"PK\x03\x04 not a zip")
    with pytest.raises(AtlasError, match=r"train000.npz: damaged"):
        convert(BottomUpNpz(folder=str(folder), dim=D, regions=3), world, tmp_path)


def test_vocabulary(tmp_path: Path) -> None:
    path = tmp_path / "v.txt"
    path.write_text("chair\n\nlamp\n")
    with pytest.raises(AtlasError, match="line 2: is empty"):
        read_vocabulary(path, None, "objects_vocab")
    path.write_text("chair,seat\nlamp")  # the published lists end without a newline
    assert read_vocabulary(path, 2, "objects_vocab") == ["chair,seat", "lamp"]
    assert read_vocabulary(None, 1600, "objects_vocab") == []
    path.unlink()
    with pytest.raises(AtlasError, match="objects_vocab: no such file"):
        read_vocabulary(path, None, "objects_vocab")
