"""Phrases with boxes in pictures: what heads are scored on. Read from a CSV file, and checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import check_place
from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.data.pictures import picture_size
from attention_atlas.errors import AtlasError, ConfigError

Box = tuple[float, float, float, float]
COLUMNS = ("picture", "phrase", "x", "y", "w", "h")
SLACK = 1.0  # pixels by which a box may reach over the edge: published boxes are rounded


@dataclass(frozen=True)
class Example:
    """A phrase and the boxes of what it names.

    picture: a path or PIL picture. boxes: left, top, right, bottom in pixels of the upright picture; several
    boxes count as one region. where: file and row of each box, for error messages. size: width and height of
    the picture; `checked` sets it.
    """

    picture: Any
    phrase: str
    boxes: Sequence[Box]
    where: Sequence[str] = field(default=(), compare=False)
    size: tuple[int, int] = field(default=(0, 0), compare=False)

    @property
    def key(self) -> str:
        """The same for all examples of one picture."""
        return str(self.picture) if isinstance(self.picture, str | Path) else f"picture {id(self.picture)}"

    @property
    def name(self) -> str:
        return Path(self.picture).name if isinstance(self.picture, str | Path) else "picture"


def read_boxes(path: str | Path, folder: str | Path) -> list[Example]:
    """Examples of a UTF-8 CSV file with the columns picture, phrase, x, y, w, h.

    picture: path below `folder`. x, y: the upper left corner; w, h: width and height; all in pixels. Rows
    with the same picture and phrase are one example with several boxes. Other columns are ignored.

    Raises AtlasError, with the line and the column, for a missing file or column, an empty phrase, a number
    that is none, or a box without an area.
    """
    path, folder = Path(path), Path(folder)
    if not folder.is_dir():
        raise ConfigError(f"--data: {folder}: no such folder; give the folder of the pictures")
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
        picture, phrase = row["picture"].strip(), " ".join(row["phrase"].split())
        for column, text in (("picture", picture), ("phrase", phrase)):
            if not text:
                raise AtlasError(f"{where}: {column}: is empty; give one for each box")
        check_place(picture, f"{where}: picture")
        if not (folder / picture).is_file():
            raise AtlasError(
                f"{where}: picture: '{picture}' is not in {folder}; correct the path or add the file"
            )
        x, y, w, h = (_number(row[column], f"{where}: {column}") for column in COLUMNS[2:])
        for column, edge in (("w", w), ("h", h)):
            if edge < 1:
                raise AtlasError(
                    f"{where}: {column}: {edge:g} is less than a pixel; give pixels, not fractions"
                )
        known = found.get((picture, phrase), Example(folder / picture, phrase, ()))
        found[picture, phrase] = replace(
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
    """The examples with boxes cut at the edge of their picture.

    Raises AtlasError for an empty phrase, an example without a box, a picture that cannot be read, a box that
    lies outside its picture or reaches over its edge by more than a pixel, and fewer than two pictures.
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
                is_path = isinstance(example.picture, str | Path)
                sizes[example.key] = picture_size(example.picture) if is_path else example.picture.size
            except AtlasError as error:
                raise AtlasError(f"{first}: picture: {error}") from None
        size = sizes[example.key]
        places = example.where or [f"{first}: box {n}" for n in range(len(example.boxes))]
        boxes = tuple(_inside(box, size, example, place) for box, place in zip(example.boxes, places))
        out.append(replace(example, boxes=boxes, size=size))
    if len(sizes) < 2:
        raise AtlasError(
            f"boxes: are in {len(sizes)} picture; heads are picked on other pictures than they are measured "
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
            f"{height} pixels); give pixels of the upright picture"
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
