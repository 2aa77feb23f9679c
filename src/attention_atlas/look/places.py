"""Where the tokens of a picture lie in it. The only place that knows the geometry of a model family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

# Families whose picture is one square grid of patches in raster order.
FIXED_GRID = ("llava", "vipllava", "paligemma")


def token_boxes(
    model: Any, processor: Any, inputs: Any, sizes: Sequence[tuple[int, int]], is_image_S: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(boxes_S4, picture_S) of the sequence.

    boxes: x1, y1, x2, y2 in pixels of the original picture, x2 and y2 exclusive; NaN for a token without a
    place (text, a learned query, a family whose geometry is not known). picture: index of the token's
    picture, −1 for none. sizes: (width, height) of each picture. inputs: what the processor returned.
    """
    boxes_S4 = np.full((len(is_image_S), 4), np.nan)
    picture_S = np.full(len(is_image_S), -1)
    positions = np.flatnonzero(is_image_S)
    each, rest = divmod(len(positions), len(sizes))
    side = round(each**0.5)
    known = getattr(model.config, "model_type", "") in FIXED_GRID and not rest and side * side == each
    for n, size in enumerate(sizes):
        own = positions[n * each : (n + 1) * each] if not rest else positions[:0]
        picture_S[own] = n
        window = _window(getattr(processor, "image_processor", None), size) if known else None
        if window is not None:
            boxes_S4[own] = _grid(window, size, side)
    if len(sizes) == 1:
        picture_S[positions] = 0
    return boxes_S4, picture_S


def _window(images: Any, size: tuple[int, int]) -> tuple[float, float, float, float] | None:
    """The part of a picture that the model sees, in the picture's pixels; None if it is not known."""
    width, height = size
    target = dict(getattr(images, "size", None) or {})
    if getattr(images, "do_pad", False) or not getattr(images, "do_resize", False):
        return None
    if target.get("shortest_edge"):
        short = int(target["shortest_edge"])
        scale = short / min(size)
        resized = (short, int(scale * height)) if width <= height else (int(scale * width), short)
    elif target.get("height") and target.get("width"):
        resized = (int(target["width"]), int(target["height"]))
    else:
        return None
    left, top, seen = 0, 0, resized
    if getattr(images, "do_center_crop", False):
        crop = dict(images.crop_size)
        seen = (int(crop["width"]), int(crop["height"]))
        left, top = (resized[0] - seen[0]) // 2, (resized[1] - seen[1]) // 2
    across, down = width / resized[0], height / resized[1]
    return left * across, top * down, (left + seen[0]) * across, (top + seen[1]) * down


def _grid(window: tuple[float, float, float, float], size: tuple[int, int], side: int) -> np.ndarray:
    """(side², 4) boxes in raster order, cut at the picture's edges."""
    x_C, y_R = np.linspace(window[0], window[2], side + 1), np.linspace(window[1], window[3], side + 1)
    boxes = [(x_C[c], y_R[r], x_C[c + 1], y_R[r + 1]) for r in range(side) for c in range(side)]
    return np.clip(np.array(boxes), 0, [*size, *size])
