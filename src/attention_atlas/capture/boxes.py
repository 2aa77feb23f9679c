"""Where in the original image each image token of the sequence lies.

boxes_T4, image_T = token_boxes(model.config, inputs, [image.size[::-1]], processor.image_processor)
left, top, right, bottom = boxes_T4[t]          # pixels of image image_T[t]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.box_families import ImageInput, boxes_of
from attention_atlas.capture.token_roles import roles_of
from attention_atlas.errors import AtlasError


def token_boxes(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    image_processor: Any = None,
    row: int = 0,
) -> tuple[Tensor, Tensor]:
    """(boxes_T4, image_T) for one row of the batch: for each of its T tokens the box (left, top, right,
    bottom) in pixels of the original image, and the image's index in `sizes`.

    config: the model's. inputs: what the processor returned. sizes: (height, width) of all images of the
    batch, in order. image_processor: its cropping, padding and tiling are undone; None: none of them
    (an error for families that depend on it). row: which element of the batch.

    A box is NaN for a token without a place: text, a class token, the end of a row of patches, a query of a
    Q-Former, a patch of padding. Such a token of an image still has its index; others have -1.

    Raises AtlasError for a family whose geometry is not known, and when the number of image tokens does
    not match it.
    """
    roles = roles_of(inputs, config)
    positions = [[t for t, role in enumerate(found) if role == "image"] for found in roles]
    boxes_T4 = torch.full((len(roles[row]), 4), float("nan"))
    image_T = torch.full((len(roles[row]),), -1)
    first = 0
    for b, places in enumerate(positions):
        cut = _cut(config, inputs, sizes, image_processor, first, len(places), b)
        if b == row and places:
            boxes_T4[places] = torch.cat(cut)
            image_T[places] = torch.cat([torch.full((len(x),), first + n) for n, x in enumerate(cut)])
        first += len(cut)
    if first < len(sizes):
        raise AtlasError(f"token_boxes: {len(sizes)} sizes, but the inputs hold {first} images; pass theirs")
    return boxes_T4, image_T


def _cut(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    processor: Any,
    first: int,
    tokens: int,
    row: int,
) -> list[Tensor]:
    """Boxes of each image of one text that has `tokens` image tokens; sizes[first] is its first image."""
    wrong = ""
    for alone in (True, False):  # an image may be cut differently when its text has others
        found: list[Tensor] = []
        while sum(map(len, found)) < tokens:
            index = first + len(found)
            if index >= len(sizes):
                wrong = f"has more image tokens than {len(sizes)} images give; pass the sizes of all images"
                break
            image = ImageInput(config, inputs, index, sizes[index], processor, alone)
            found.append(clipped(boxes_of(image), sizes[index]))
        else:
            total = sum(map(len, found))
            if total == tokens and (alone or len(found) > 1):
                return found
            wrong = wrong or (
                f"has {tokens} image tokens, but {config.model_type}'s geometry gives {total} for "
                f"{len(found)} images; check sizes, image processor and config"
            )
    raise AtlasError(f"token_boxes: row {row} {wrong}")


def clipped(boxes_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes within the image; NaN for those outside it (padding)."""
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes_N4.dtype)
    inside = torch.minimum(boxes_N4.clamp(min=0), limit)
    # A width below a thousandth of a pixel is a rounding error at the image's edge.
    empty = (inside[:, 2:] - inside[:, :2] < 1e-3).any(1)
    return inside.masked_fill(empty[:, None], float("nan"))
