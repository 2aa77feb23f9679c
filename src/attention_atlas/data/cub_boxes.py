"""CUB-200-2011's bounding boxes and the square that text-to-image models crop around the bird."""

from __future__ import annotations

from pathlib import Path

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_text

Box = tuple[float, float, float, float]
MARGIN = 0.75  # half the square's side, as a fraction of the box's longer side (AttnGAN, datasets.py)


def read_boxes(folder: Path) -> dict[str, Box]:
    """{path of an image below images/: its box (x, y, width, height) in pixels}.

    `folder` holds images.txt ("1 001.Black_footed_Albatross/x.jpg") and bounding_boxes.txt
    ("1 60.0 27.0 325.0 304.0"). Raises AtlasError for a missing file or a line in another format.
    """
    boxes: dict[str, Box] = {}
    for number, fields in _rows(folder / "bounding_boxes.txt", 5):
        try:
            x, y, width, height = (float(v) for v in fields[1:])
            int(x + y + width + height)  # raises for NaN and infinity
        except (ValueError, OverflowError):
            raise AtlasError(
                f"{folder / 'bounding_boxes.txt'}: line {number}: not 'id x y width height'; unpack it again"
            ) from None
        boxes[fields[0]] = (x, y, width, height)
    found = {}
    for number, (key, path) in _rows(folder / "images.txt", 2):
        if key not in boxes:
            raise AtlasError(f"{folder / 'images.txt'}: line {number}: no box for '{key}'; unpack it again")
        found[path] = boxes[key]
    return found


def _rows(path: Path, fields: int) -> list[tuple[int, list[str]]]:
    remedy = "unpack it again" if path.exists() else "run 'make paper-check' to see where it comes from"
    rows = []
    for number, line in enumerate(read_text(path, remedy).splitlines(), start=1):
        values = line.split()
        if len(values) != fields:
            raise AtlasError(f"{path}: line {number}: {len(values)} fields, not {fields}; unpack it again")
        rows.append((number, values))
    return rows


def crop_square(box: Box, width: int, height: int) -> list[int]:
    """AttnGAN's crop [x1, y1, x2, y2] in pixels, x2 and y2 exclusive, for a box (x, y, width, height).

    Centre of the box ± int(0.75 × its longer side), clipped to the image of `width` × `height`; a size of 0
    (unknown) disables clipping at the right and bottom.
    """
    x, y, w, h = box
    reach = int(max(w, h) * MARGIN)
    middle_x, middle_y = int((2 * x + w) / 2), int((2 * y + h) / 2)
    x2, y2 = middle_x + reach, middle_y + reach
    return [
        max(0, middle_x - reach),
        max(0, middle_y - reach),
        min(width, x2) if width else x2,
        min(height, y2) if height else y2,
    ]
