"""Result of one run (model, data, alignment, seed): scores, per-example rows, images to show.

On disk a folder: `scores.json`, `examples.jsonl`, `grounding.jsonl`, `shown.json` and `shown.safetensors`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.files import atomic_path, read_json, read_jsonl, write_json, write_jsonl
from attention_atlas.measures.distribution import check_weights

# Accuracy (points) with an example's own image minus that with another one: the gain from seeing the image.
GAIN = "gain over another image"
EXAMPLE_KEYS = ("example", "metric", "value")
GROUNDING_KEYS = ("example", "word", "mass", "chance", "top1")
SHOWN_KEYS = ("example", "image", "size", "words", "grid", "text")


@dataclass(kw_only=True)
class Shown:
    """One example whose attention is drawn.

    `image` is its path from the working directory; without one, `pixels` has its (H,W,3) uint8. `size` is
    (width, height) of the coordinates in `boxes_N4` (x1,y1,x2,y2), in pixels. Attention is over N boxes, or
    over a `grid` of (rows, columns) with N = rows * columns in raster order. `attn_WN` row w belongs to
    `words[w]` (a word, a step or an answer), rows sum to at most 1. `text` is the caption, or the question
    and the given answer.
    """

    example: str
    image: str = ""
    pixels: np.ndarray | None = None
    size: tuple[int, int] = (0, 0)
    words: list[str]
    attn_WN: np.ndarray
    boxes_N4: np.ndarray | None = None
    grid: tuple[int, int] | None = None
    text: str = ""


@dataclass
class RunResult:
    """scores: corpus-level numbers under their names in the tables.
    examples: rows {"example", "metric", "value", **groups}; a group is a string or whole number ("type",
    "category", "nouns", ...). An example that is in several groups of one kind has one row for each.
    Intervals resample the group "image" if given, else the example.
    grounding: rows {"example", "word", "mass", "chance", "top1"}: the share of a word's attention on the
    region(s) that it refers to, the share for uniform attention, and whether its peak is there.
    shown: the same examples for every alignment.
    """

    scores: dict[str, float]
    examples: list[dict[str, Any]] = field(default_factory=list)
    grounding: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)

    def check(self, where: str = "run") -> RunResult:
        """Return self; raises AtlasError for NaN, duplicated rows, missing or unknown keys, wrong shapes."""
        if not self.scores:
            raise AtlasError(f"{where}: scores: empty; the evaluator must give at least one number")
        for name, value in self.scores.items():
            _finite(value, f"{where}: scores: {name}")
        _rows(self.examples, EXAMPLE_KEYS, True, f"{where}: examples")
        _rows(self.grounding, GROUNDING_KEYS, False, f"{where}: grounding")
        for i, row in enumerate(self.grounding):
            for name in ("mass", "chance"):
                if not -1e-4 <= row[name] <= 1 + 1e-4:
                    raise AtlasError(
                        f"{where}: grounding: row {i}: {name}: {row[name]} is not a share; evaluate again"
                    )
            if row["top1"] not in (0, 1):
                raise AtlasError(f"{where}: grounding: row {i}: top1: {row['top1']} is neither 0 nor 1")
        ids = [item.example for item in self.shown]
        if len(set(ids)) != len(ids):
            raise AtlasError(f"{where}: shown: an example occurs twice; show each once")
        for item in self.shown:
            _check_shown(item, f"{where}: shown: {item.example}")
        return self

    def save(self, folder: str | Path) -> None:
        """Write the folder's files. The same result gives the same bytes."""
        from safetensors.numpy import save_file

        folder = Path(folder)
        self.check(str(folder))
        write_json(folder / "scores.json", {k: float(v) for k, v in self.scores.items()})
        write_jsonl(folder / "examples.jsonl", self.examples)
        write_jsonl(folder / "grounding.jsonl", self.grounding)
        arrays: dict[str, np.ndarray] = {}
        for i, item in enumerate(self.shown):
            arrays[f"{i:03d}.attn"] = np.ascontiguousarray(item.attn_WN, np.float32)
            if item.boxes_N4 is not None:
                arrays[f"{i:03d}.boxes"] = np.ascontiguousarray(item.boxes_N4, np.float32)
            if item.pixels is not None:
                arrays[f"{i:03d}.pixels"] = np.ascontiguousarray(item.pixels)
        rows: list[dict[str, Any]] = [{k: getattr(item, k) for k in SHOWN_KEYS} for item in self.shown]
        write_json(folder / "shown.json", rows)
        with atomic_path(folder / "shown.safetensors") as temporary:
            save_file(arrays, temporary)

    @classmethod
    def load(cls, folder: str | Path) -> RunResult:
        """Read and check a folder that `save` wrote. Raises AtlasError naming the file."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        folder = Path(folder)
        scores, rows = read_json(folder / "scores.json"), read_json(folder / "shown.json")
        path = folder / "shown.safetensors"
        try:
            arrays = load_file(path)
        except (SafetensorError, OSError) as error:
            raise AtlasError(f"{path}: cannot be read ({error}); run the trainings again") from None
        shown = []
        for i, row in enumerate(rows):
            _keys(row, SHOWN_KEYS, False, f"{folder / 'shown.json'}: entry {i}")
            if f"{i:03d}.attn" not in arrays:
                raise AtlasError(f"{path}: {i:03d}.attn: is missing; run the trainings again")
            grid = tuple(row["grid"]) if row["grid"] else None
            shown.append(
                Shown(
                    **{**row, "size": tuple(row["size"]), "grid": grid},
                    attn_WN=arrays[f"{i:03d}.attn"],
                    boxes_N4=arrays.get(f"{i:03d}.boxes"),
                    pixels=arrays.get(f"{i:03d}.pixels"),
                )
            )
        examples = [row for _, row in read_jsonl(folder / "examples.jsonl", may_be_empty=True)]
        grounding = [row for _, row in read_jsonl(folder / "grounding.jsonl", may_be_empty=True)]
        return cls(scores, examples, grounding, shown).check(str(folder))


def _finite(value: Any, where: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise AtlasError(f"{where}: {value!r} is not a finite number; evaluate again")


def _keys(row: Mapping[str, Any], known: tuple[str, ...], more: bool, where: str) -> None:
    for name in known:
        if name not in row:
            raise AtlasError(f"{where}: {name}: is missing; the row has {', '.join(sorted(row))}")
    if not more:
        for name in row:
            if name not in known:
                raise AtlasError(f"{where}: {name}: unknown key{did_you_mean(name, known)}")


def _rows(rows: Iterable[Mapping[str, Any]], known: tuple[str, ...], more: bool, where: str) -> None:
    seen: set[tuple[Any, ...]] = set()
    for i, row in enumerate(rows):
        at = f"{where}: row {i}"
        _keys(row, known, more, at)
        key: list[Any] = []
        for name, value in sorted(row.items()):
            if name in ("value", "mass", "chance", "top1"):
                _finite(value, f"{at}: {name}")
                continue
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise AtlasError(f"{at}: {name}: {value!r} is neither text nor a whole number; correct it")
            key.append((name, value))
        # A word may occur twice in a sentence; an example has one value per metric and group.
        if more and tuple(key) in seen:
            raise AtlasError(f"{at}: example {row['example']}, {row['metric']}: occurs twice; keep one row")
        seen.add(tuple(key))


def _check_shown(item: Shown, where: str) -> None:
    attn = np.asarray(item.attn_WN)
    if attn.ndim != 2 or len(attn) != len(item.words):
        raise AtlasError(f"{where}: attn_WN: shape {attn.shape} does not fit {len(item.words)} words")
    check_weights(attn, f"{where}: attn_WN", partial=True)
    if (item.boxes_N4 is None) == (item.grid is None):
        raise AtlasError(f"{where}: give either boxes_N4 or grid, the places of the attention")
    places = item.grid[0] * item.grid[1] if item.grid else len(np.asarray(item.boxes_N4))
    if places != attn.shape[1]:
        raise AtlasError(f"{where}: attn_WN: has {attn.shape[1]} columns for {places} places; correct one")
    if item.boxes_N4 is not None and np.asarray(item.boxes_N4).shape != (places, 4):
        raise AtlasError(f"{where}: boxes_N4: shape {np.asarray(item.boxes_N4).shape} is not (N,4)")
    pixels = item.pixels
    if pixels is None and not item.image:
        raise AtlasError(f"{where}: give image (a path) or pixels")
    if pixels is not None and (pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8):
        raise AtlasError(f"{where}: pixels: {pixels.dtype} {pixels.shape} is not uint8 (H,W,3)")
