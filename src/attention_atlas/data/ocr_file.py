"""`<images>_ocr.jsonl`: the words that optical character recognition found, one line per image.

    {"image_id": ..., "size": [width, height], "source": "rapidocr 3.10.0",
     "tokens": [{"text": "EXIT", "box": [x1,y1,x2,y2], "confidence": 0.98, "look": [48 numbers 0..255]}, ...]}

A token is one word without spaces; boxes are in pixels of the image, x2 and y2 exclusive; `look` is the
mean colour of 4 × 4 cells of the box, R,G,B by row and column, or [] if the pixels were not available. Words
of published OCR also have `row`, the number of their entry there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.json_rows import real, reals, value
from attention_atlas.data.json_rows import text as text_of
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl, write_jsonl

CELLS = 4
LOOK = CELLS * CELLS * 3
FIELDS = ("text", "box", "confidence", "look")


@dataclass
class OcrToken:
    text: str
    box: tuple[float, float, float, float]
    confidence: float = 1.0
    look: list[int] = field(default_factory=list)
    row: int = -1  # number of its entry in the published OCR; -1: none


@dataclass
class OcrImage:
    """The words of one image; `size` is (width, height) in pixels."""

    image_id: str
    size: tuple[int, int]
    tokens: list[OcrToken]
    source: str = ""


def write_ocr(path: str | Path, images: Iterable[OcrImage]) -> None:
    """Write the file, images sorted by id, after the same checks as in `read_ocr`."""
    rows = [asdict(p) for p in sorted(images, key=lambda p: p.image_id)]
    for row in rows:
        row["tokens"] = [{k: v for k, v in t.items() if (k, v) != ("row", -1)} for t in row["tokens"]]
        _image(row, f"{path}: image '{row['image_id']}'")
    write_jsonl(path, rows)


def read_ocr(path: str | Path) -> dict[str, OcrImage]:
    """Images by id. Raises AtlasError for a missing file or field, a duplicate id, a value out of range."""
    images: dict[str, OcrImage] = {}
    for line, row in read_jsonl(path):
        image = _image(row, f"{path}: line {line}")
        if image.image_id in images:
            raise AtlasError(
                f"{path}: line {line}: image_id: '{image.image_id}' occurs twice; run the OCR stage again"
            )
        images[image.image_id] = image
    return images


def _image(row: Mapping[str, Any], where: str) -> OcrImage:
    width, height = (int(v) for v in reals(row, "size", where, 2))
    rows = value(row, "tokens", where)
    if not isinstance(rows, list):
        raise AtlasError(f"{where}: tokens: is not a list; run the OCR stage again")
    tokens = [_token(t, f"{where}: tokens: {i}") for i, t in enumerate(rows)]
    image_id = text_of(row, "image_id", where)
    return OcrImage(image_id, (width, height), tokens, str(row.get("source", "")))


def _token(row: Mapping[str, Any], where: str) -> OcrToken:
    text, confidence = text_of(row, "text", where), real(row, "confidence", where)
    x1, y1, x2, y2 = reals(row, "box", where, 4)
    look = [int(v) for v in reals(row, "look", where, LOOK)] if row.get("look") else []
    if not text or text.split() != [text]:
        raise AtlasError(f"{where}: text: {text!r} is not one word; split it at spaces")
    if not all(map(math.isfinite, (x1, y1, x2, y2))) or x2 <= x1 or y2 <= y1:
        raise AtlasError(f"{where}: box: {[x1, y1, x2, y2]} has no area; run the OCR stage again")
    if not 0 <= confidence <= 1:
        raise AtlasError(f"{where}: confidence: {confidence} is not within 0..1; run the OCR stage again")
    if look and (len(look) != LOOK or not all(0 <= v <= 255 for v in look)):
        raise AtlasError(f"{where}: look: needs {LOOK} numbers in 0..255; run the OCR stage again")
    return OcrToken(text, (x1, y1, x2, y2), confidence, look, int(row.get("row", -1)))


def look_of(image_HWC: np.ndarray, box: tuple[float, float, float, float]) -> list[int]:
    """Mean colours (R,G,B in 0..255) of 4 × 4 cells of a box, with edges rounded outwards to whole pixels."""
    from PIL import Image

    height, width = image_HWC.shape[:2]
    x1, y1 = (max(0, math.floor(v)) for v in box[:2])
    x2, y2 = min(width, math.ceil(box[2])), min(height, math.ceil(box[3]))
    if x2 <= x1 or y2 <= y1:
        return []
    crop = Image.fromarray(np.ascontiguousarray(image_HWC[y1:y2, x1:x2]))
    return np.asarray(crop.resize((CELLS, CELLS), Image.Resampling.BOX)).ravel().astype(int).tolist()
