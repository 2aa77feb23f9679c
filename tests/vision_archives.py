"""Archives of bottom-up features in the published layouts, and what must come out of them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.regions.imported import ImportedFeatures

OBJECTS = ["chair,armchair", "lamp", "sofa,couch", "rug"]
ATTRIBUTES = ["gray,grey", "red"]
D = 6
WITH_CLASSES = ["image_id", "image_h", "image_w", "objects_id", "objects_conf", "attrs_id", "attrs_conf"]
WITH_CLASSES += ["num_boxes", "boxes", "features"]
FULL = {name: name for name in ("features", "boxes", "objects_id", "objects_conf", "attrs_id", "attrs_conf")}


def write_vocabularies(folder: Path) -> dict[str, Any]:
    """Settings of a reader for these lists and sizes."""
    (folder / "objects.txt").write_text("\n".join(OBJECTS) + "\n")
    (folder / "attributes.txt").write_text("\n".join(ATTRIBUTES))
    return {
        "objects_vocab": str(folder / "objects.txt"),
        "attributes_vocab": str(folder / "attributes.txt"),
        "objects": 4,
        "attributes": 2,
        "dim": D,
        "regions": 3,
    }


def detected(image: int, count: int) -> dict[str, np.ndarray]:
    """Possible output of a detector; confidences differ, so the order of regions is unambiguous."""
    rng = np.random.default_rng(image)
    low = rng.uniform(0, 20, (count, 2))
    return {
        "boxes": np.concatenate([low, low + rng.uniform(5, 20, (count, 2))], 1).astype("<f4"),
        "features": rng.normal(size=(count, D)).astype("<f4"),
        "objects_id": rng.integers(0, 4, count).astype("<i8"),
        "objects_conf": ((rng.permutation(count) + 1) / 10).astype("<f4"),
        "attrs_id": rng.integers(0, 2, count).astype("<i8"),
        "attrs_conf": np.array([0.1, 0.11, 0.9, 0.05, 0.3][:count], dtype="<f4"),
    }


def archive(world: Corpus, counts: tuple[int, ...] = (3, 2, 5)) -> dict[str, dict[str, np.ndarray]]:
    return {image_id: detected(i, counts[i]) for i, image_id in enumerate(world.scenes)}


def write_tsv(path: Path, images: dict[str, dict[str, np.ndarray]], columns: list[str]) -> Path:
    with path.open("w") as file:
        for image_id, arrays in images.items():
            cells: dict[str, Any] = {"image_id": image_id, "image_w": 48, "image_h": 48}
            cells["num_boxes"] = len(arrays["boxes"])
            for name, value in arrays.items():  # image_w and image_h may be given as numbers
                whole = isinstance(value, int)
                cells[name] = value if whole else base64.b64encode(np.ascontiguousarray(value)).decode()
            file.write("\t".join(str(cells[name]) for name in columns) + "\n")
    return path


def convert(source: ImportedFeatures, world: Corpus, tmp_path: Path) -> FeaturesFile:
    source.extract(world, tmp_path / "out.h5", tmp_path / "work", "cpu")
    return FeaturesFile(tmp_path / "out.h5")


def check(file: FeaturesFile, images: dict[str, dict[str, np.ndarray]], classes: bool = True) -> None:
    """Every field of every image, region by region."""
    assert sorted(file.image_ids) == sorted(images) and (file.dim, file.regions) == (D, 3)
    for image_id, arrays in images.items():
        row, n = file.read(image_id), min(3, len(arrays["boxes"]))
        keep = list(range(n))
        if len(arrays["boxes"]) > 3 and classes:  # the surest, in the archive's order
            floor = sorted(arrays["objects_conf"])[-3]
            keep = [i for i, c in enumerate(arrays["objects_conf"]) if c >= floor]
        assert row.count == n and row.size == (48, 48)
        for r, i in enumerate(keep):
            assert np.array_equal(row.features[r], arrays["features"][i].astype("float16"))
            assert np.allclose(row.boxes[r], arrays["boxes"][i], atol=1e-4)
            if classes:
                assert row.label[r] == arrays["objects_id"][i]
                assert row.attribute[r] == arrays["attrs_id"][i]
                assert np.isclose(row.label_confidence[r], arrays["objects_conf"][i], atol=1e-3)
        if classes:
            words = []
            for i in keep:
                name = OBJECTS[arrays["objects_id"][i]].split(",")[0]
                attribute = ATTRIBUTES[arrays["attrs_id"][i]].split(",")[0]
                words.append(f"{attribute} {name}" if float(arrays["attrs_conf"][i]) > 0.101 else name)
            assert file.descriptions(image_id) == words
