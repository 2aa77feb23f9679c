"""Phrases with boxes in images, for scoring heads: read from a CSV file, and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import check_place
from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.data.images import image_size
from attention_atlas.errors import AtlasError, ConfigError

Box = tuple[float, float, float, float]
COLUMNS = ("image", "phrase", "x", "y", "w", "h")
SLACK = 1.0  # pixels by which a box may exceed the image: published boxes are rounded


@dataclass(frozen=True)
class Example:
    """A phrase and the boxes of what it names.

    image: a path or PIL image. boxes: left, top, right, bottom in pixels of the upright image; several
    boxes count as one region. where: file and row of each box, for error messages. size: width and height of
    the image; `checked` sets it.
    """

    image: Any
    phrase: str
    boxes: Sequence[Box]
    where: Sequence[str] = field(default=(), compare=False)
    size: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def key(self) -> str:
        """A key that all examples of one image share."""
        return str(self.image) if isinstance(self.image, str | Path) else f"image {id(self.image)}"

    @property
    def name(self) -> str:
        return Path(self.image).name if isinstance(self.image, str | Path) else "image"


def read_boxes(path: str | Path, folder: str | Path) -> list[Example]:
    """Examples of a UTF-8 CSV file with the columns image, phrase, x, y, w, h.

    image: path below `folder`. x, y: the upper left corner; w, h: width and height; all in pixels. Rows
    with the same image and phrase are one example with several boxes. Other columns are ignored.

    Raises AtlasError, with the line and the column, for a missing file or column, an empty phrase, an
    invalid number, or a box without an area.
    """
    path, folder = Path(path), Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"--data: {folder}: no such folder; give the folder of the images")
    if not path.is_file():
        raise AtlasError(f"{path}: no such file; write one with the columns {','.join(COLUMNS)}")
    columns, rows = csv_rows(path)
    for column in COLUMNS:
        if column not in columns:
            raise AtlasError(
                f"{path}: {column}: column is missing; the first line must name {','.join(COLUMNS)}"
            )
    found: dict[tuple[str, str], Example] = {}
    for line, row in rows:
        where = f"{path}: line {line}"
        image, phrase = row["image"].strip(), " ".join(row["phrase"].split())
        for column, text in (("image", image), ("phrase", phrase)):
            if not text:
                raise AtlasError(f"{where}: {column}: is empty; give one for each box")
        check_place(image, f"{where}: image")
        if not (folder / image).is_file():
            raise AtlasError(
                f"{where}: image: '{image}' is not in {folder}; correct the path or add the file"
            )
        x, y, w, h = (_number(row[column], f"{where}: {column}") for column in COLUMNS[2:])
        for column, edge in (("w", w), ("h", h)):
            if edge < 1:
                raise AtlasError(
                    f"{where}: {column}: {edge:g} is less than a pixel; give pixels, not fractions"
                )
        known = found.get((image, phrase), Example(folder / image, phrase, ()))
        found[image, phrase] = replace(
            known, boxes=(*known.boxes, (x, y, x + w, y + h)), where=(*known.where, where)
        )
    if not found:
        raise AtlasError(f"{path}: has no rows; add one for each box")
    return list(found.values())


def some(examples: Sequence[Example], limit: int | None, seed: int = 0) -> list[Example]:
    """`limit` of the examples, drawn at random, in their order; None: all."""
    if limit is None or limit >= len(examples):
        return list(examples)
    chosen = np.random.default_rng(seed).choice(len(examples), limit, replace=False)
    return [examples[i] for i in sorted(chosen.tolist())]


def checked(examples: Sequence[Example]) -> list[Example]:
    """The examples with boxes clipped to their image.

    Raises AtlasError for an empty phrase, an example without a box, an image that cannot be read, a box that
    lies outside its image or exceeds it by more than a pixel, and fewer than two images.
    """
    sizes: dict[str, tuple[int, int]] = {}
    out = []
    for number, example in enumerate(examples):
        first = example.where[0] if example.where else f"example {number}"
        if not example.phrase.strip():
            raise AtlasError(f"{first}: phrase: is empty; give one for each box")
        if not example.boxes:
            raise AtlasError(f"{first}: boxes: none; give at least one")
        if example.key not in sizes:
            try:
                is_path = isinstance(example.image, str | Path)
                sizes[example.key] = image_size(example.image) if is_path else example.image.size
            except AtlasError as error:
                raise AtlasError(f"{first}: image: {error}") from None
        size = sizes[example.key]
        places = example.where or [f"{first}: box {n}" for n in range(len(example.boxes))]
        boxes = tuple(_inside(box, size, example, place) for box, place in zip(example.boxes, places))
        out.append(replace(example, boxes=boxes, size=size))
    if len(sizes) < 2:
        raise AtlasError(
            f"boxes: are in {len(sizes)} image; heads are picked on other images than they are measured "
            "on, so give boxes in at least 2"
        )
    return out


def _inside(box: Box, size: tuple[int, int], example: Example, where: str) -> Box:
    width, height = size
    left, top, right, bottom = (float(edge) for edge in box)
    over = max(-left, -top, right - width, bottom - height)
    inside = over <= SLACK and max(left, 0) < min(right, width) and max(top, 0) < min(bottom, height)
    if not inside or not all(map(math.isfinite, box)):
        shown = ", ".join(f"{edge:g}" for edge in box)
        raise AtlasError(
            f"{where}: box: left, top, right, bottom {shown} do not lie in {example.name} ({width} × "
            f"{height} pixels); give pixels of the upright image"
        )
    return max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise AtlasError(f"{where}: '{text.strip()}' is not a number; give pixels")
    return value
