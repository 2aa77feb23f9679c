"""Bottom-up-attention regions as they are published: TSV with classes, npz files, both vocabularies."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .drawn import COLOURS, KINDS, SIZE, Thing

COUNT, DIM = 36, 2048
COLUMNS = ("objects_id", "objects_conf", "attrs_id", "attrs_conf")
OBJECTS = [*KINDS, "lamp", "rug", "window", "wall", "floor"]
ATTRIBUTES = list(COLOURS)


def write_vocabularies(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    objects = OBJECTS + [f"object{i}" for i in range(len(OBJECTS), 1600)]
    attributes = ATTRIBUTES + [f"attribute{i}" for i in range(len(ATTRIBUTES), 400)]
    (folder / "objects_vocab.txt").write_text("\n".join(objects) + "\n")
    (folder / "attributes_vocab.txt").write_text("\n".join(attributes) + "\n")


def detected(shown: list[Thing], seed: int, count: int = COUNT) -> dict[str, np.ndarray]:
    """Regions of the things, each several times, and of the background; features tell what they show."""
    rng = np.random.default_rng(seed)
    base = np.random.default_rng(0).normal(size=(len(OBJECTS) + len(ATTRIBUTES), DIM))
    found = [shown[i] if i < len(shown) else None for i in range(len(shown) + 2)]
    boxes, rows, names, colours = [], [], [], []
    for k in range(count):
        thing = found[k % len(found)]
        if thing is None:
            x, y = rng.integers(0, SIZE[0] // 2), rng.integers(0, SIZE[1] // 2)
            boxes.append((x, y, x + SIZE[0] // 2, y + SIZE[1] // 2))
            names.append(int(rng.integers(len(KINDS), len(OBJECTS))))
            colours.append(int(rng.integers(len(ATTRIBUTES))))
        else:
            boxes.append(np.clip(np.array(thing.box) + rng.integers(-2, 3, 4), 0, max(SIZE)))
            names.append(OBJECTS.index(thing.name))
            colours.append(ATTRIBUTES.index(thing.colour))
        feature = base[names[-1]] + base[len(OBJECTS) + colours[-1]] + 0.2 * rng.normal(size=DIM)
        rows.append(np.maximum(feature, 0))
    return {
        "boxes": np.array(boxes, "<f4"),
        "features": np.array(rows, "<f4"),
        "objects_id": np.array(names, "<i8"),
        "objects_conf": rng.uniform(0.3, 0.99, count).astype("<f4"),
        "attrs_id": np.array(colours, "<i8"),
        "attrs_conf": rng.uniform(0.2, 0.9, count).astype("<f4"),
    }


def write_tsv(path: Path, images: Iterable[tuple[str, list[Thing]]]) -> None:
    """In LXMERT's order of columns: image_id, height, width, classes, num_boxes, boxes, features."""
    with path.open("w") as file:
        for seed, (image_id, shown) in enumerate(images):
            arrays = detected(shown, seed)
            coded = {name: base64.b64encode(value.tobytes()).decode() for name, value in arrays.items()}
            cells = [image_id, SIZE[1], SIZE[0], *(coded[c] for c in COLUMNS), COUNT]
            file.write("\t".join(map(str, [*cells, coded["boxes"], coded["features"]])) + "\n")


def write_npz(folder: Path, images: Iterable[tuple[str, list[Thing]]], count: int = COUNT) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (image_id, shown) in enumerate(images):
        arrays = detected(shown, seed, count)
        np.savez(
            folder / f"{image_id}.npz",
            feat=arrays["features"],
            bbox=arrays["boxes"],
            num_bbox=count,
            image_w=SIZE[0],
            image_h=SIZE[1],
            **{name: arrays[name] for name in COLUMNS},
        )
