"""Reader of bottom-up-attention TSV files (Anderson et al. 2018; with classes, as LXMERT published them)."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Scene
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.imported import ImportedFeatures, Record

# Columns with the base64 of a little-endian array of num_boxes rows.
_DTYPES = {
    "boxes": "<f4",
    "features": "<f4",
    "objects_id": "<i8",
    "objects_conf": "<f4",
    "attrs_id": "<i8",
    "attrs_conf": "<f4",
}
_SYNONYMS = {"img_id": "image_id", "img_w": "image_w", "img_h": "image_h"}


@dataclass(kw_only=True)
class BottomUpTSV(ImportedFeatures):
    """`paths`: the files, in order; `columns`: their columns, as there is no header line.

    The default is the order of bottom-up-attention's own files, width before height. LXMERT's release has the
    height first and classes: img_id, img_h, img_w, objects_id, objects_conf, attrs_id, attrs_conf, num_boxes,
    boxes, features.
    """

    paths: list[str]
    columns: list[str] = field(
        default_factory=lambda: ["image_id", "image_w", "image_h", "num_boxes", "boxes", "features"]
    )

    def where(self) -> str:
        return ", ".join(self.paths)

    def records(self, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Callable[[], Record]]]:
        columns = [_SYNONYMS.get(name, name) for name in self.columns]
        known = {"image_id", "image_w", "image_h", "num_boxes", *_DTYPES}
        for name in columns:
            if name not in known:
                raise ConfigError(
                    f"BottomUpTSV: columns: '{name}' is unknown; known: {', '.join(sorted(known))}"
                )
            if columns.count(name) > 1:
                raise ConfigError(f"BottomUpTSV: columns: '{name}' occurs twice; name each column once")
        for name in ("image_id", "num_boxes", "boxes", "features"):
            if name not in columns:
                raise ConfigError(f"BottomUpTSV: columns: '{name}' is missing; name every column of the file")
        if ("image_w" in columns) != ("image_h" in columns):
            raise ConfigError("BottomUpTSV: columns: image_w, image_h: one is missing; name both or neither")
        place = columns.index("image_id")
        for path in map(Path, self.paths):
            if not path.is_file():
                raise AtlasError(f"{path}: no such file; see docs/features.md for where it comes from")
            # Bytes that are not ASCII mean a damaged row, or in the first row another kind of file.
            with path.open(encoding="ascii", errors="replace") as file:
                for number, line in enumerate(file, start=1):
                    if number == 1 and "\ufffd" in line:
                        raise AtlasError(f"{path}: not a text file of base64 columns; give the TSV")
                    cells = line.rstrip("\r\n").split("\t")
                    if len(cells) <= place or cells[place] not in wanted:
                        if len(cells) != len(columns) and number == 1:
                            _row(cells, columns, f"{path}: line {number}")  # columns do not fit the file
                        continue
                    yield cells[place], partial(_read, cells, columns, f"{path}: line {number}")


def _row(cells: list[str], columns: list[str], at: str) -> dict[str, str]:
    if len(cells) != len(columns):
        raise AtlasError(
            f"{at}: has {len(cells)} columns, expected {len(columns)}; "
            "the file is truncated, or columns does not match it"
        )
    return dict(zip(columns, cells, strict=True))


def _read(cells: list[str], columns: list[str], at: str) -> Record:
    return _decode(_row(cells, columns, at), at)


def _decode(row: Mapping[str, str], at: str) -> Record:
    try:
        count = int(row["num_boxes"])
        size = (int(row["image_w"]), int(row["image_h"])) if {"image_w", "image_h"} <= set(row) else None
    except ValueError:
        raise AtlasError(f"{at}: num_boxes, image_w, image_h: not whole numbers; correct columns") from None
    if count < 1:
        raise AtlasError(f"{at}: num_boxes: {count} objects; remove the image or run the detector again")
    arrays: dict[str, np.ndarray] = {}
    for name, dtype in _DTYPES.items():
        if name not in row:
            continue
        try:
            raw = base64.b64decode(row[name], validate=True)
        except binascii.Error:
            raise AtlasError(f"{at}: {name}: not base64; the file is damaged, download it again") from None
        itemsize = np.dtype(dtype).itemsize
        if not raw or len(raw) % (count * itemsize):
            raise AtlasError(
                f"{at}: {name}: {len(raw)} bytes do not make {count} rows of {itemsize}-byte numbers; "
                "the file is damaged or columns is wrong"
            )
        values = np.frombuffer(raw, dtype=dtype).reshape(count, -1)
        if name not in ("boxes", "features"):
            if values.shape[1] != 1:
                raise AtlasError(
                    f"{at}: {name}: {values.shape[1]} numbers per box, expected 1; correct columns"
                )
            values = values[:, 0]
        arrays[name] = values
    return Record(size=size, **arrays)
