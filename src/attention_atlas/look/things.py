"""Boxes of things in the images of a look, and how much of each word's attention they get.

Axes: M layer with maps, H head, W word, S position, T image token, N box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError
from attention_atlas.measures.places import shared

if TYPE_CHECKING:
    from attention_atlas.look.result import Look, NamedImage


@dataclass(frozen=True)
class Thing:
    """A named box. image: its index; box: left, top, right, bottom in pixels."""

    image: int
    name: str
    box: tuple[float, float, float, float]


def things_of(given: Sequence[Any], images: Sequence[NamedImage], boxes: Sequence[Example]) -> list[Thing]:
    """The boxes in each image, in the order of the images. Boxes of other images are left out; names
    that occur several times in an image are numbered.

    Raises AtlasError if boxes are given and none lies in these images.
    """
    found: list[Thing] = []
    for number, (source, image) in enumerate(zip(given, images)):
        pairs = [(e.phrase, box) for e in boxes if _same(e.image, source) for box in e.boxes]
        names = [name for name, _ in pairs]
        for n, (name, box) in enumerate(pairs):
            place = f" {names[: n + 1].count(name)}" if names.count(name) > 1 else ""
            found.append(Thing(number, name + place, _cut(name, box, image)))
    if boxes and not found:
        raise AtlasError("--boxes: none is in these images; give boxes of the --image files")
    return found


def shares_in_boxes(look: Look) -> np.ndarray:
    """(M,H,W,N): the share of a word's whole attention inside a box. A token on the edge of the box counts by
    the part of its area inside; 0 where the word does not see the box's image."""
    return np.stack([_rows(look) @ inside_T for inside_T in inside_boxes(look)], -1)


def inside_boxes(look: Look) -> np.ndarray:
    """(N,T) the part of each image token's area that lies in each box; 0 in other images."""
    boxes_T4 = np.nan_to_num(look.boxes_S4[look.image_T].astype(np.float64))
    area_T = np.maximum((boxes_T4[:, 2] - boxes_T4[:, 0]) * (boxes_T4[:, 3] - boxes_T4[:, 1]), 1e-9)
    own_NT = np.array([[t.image] for t in look.things]) == look.image_S[look.image_T]
    return np.stack([shared(boxes_T4, [t.box]) / area_T for t in look.things]) * own_NT


def _rows(look: Look) -> np.ndarray:
    return look.word_values["rows"][..., look.image_T]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str | Path) and isinstance(b, str | Path):
        return Path(a).resolve() == Path(b).resolve()
    return a is b


def _cut(name: str, box: Sequence[float], image: NamedImage) -> tuple[float, float, float, float]:
    left, top, right, bottom = map(float, box)
    width, height = image.pixels.size
    left, top, right, bottom = (
        max(left, 0.0),
        max(top, 0.0),
        min(right, float(width)),
        min(bottom, float(height)),
    )
    if not (left < right and top < bottom):
        raise AtlasError(
            f"--boxes: {name}: lies outside {image.name} ({width} × {height} pixels); give pixels of the "
            "upright image"
        )
    return left, top, right, bottom
