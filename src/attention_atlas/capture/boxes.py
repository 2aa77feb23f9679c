"""Where in the original picture each image token of the sequence lies.

boxes_T4, picture_T = token_boxes(model.config, inputs, [image.size[::-1]], processor.image_processor)
left, top, right, bottom = boxes_T4[t]          # pixels of picture picture_T[t]
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.token_roles import media_ids
from attention_atlas.errors import AtlasError


def token_boxes(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    image_processor: Any = None,
    row: int = 0,
) -> tuple[Tensor, Tensor]:
    """(boxes_T4, picture_T) for one row of the batch: for each of its T tokens the box (left, top, right,
    bottom) in pixels of the original picture, and the picture's index in `sizes`.

    config: the model's. inputs: what the processor returned. sizes: (height, width) of all pictures of the
    batch, in their order. image_processor: its cropping and padding are undone; None: pictures are resized
    to the model's size without either. row: which element of the batch.

    A box is NaN for a token without a place: text, a class token, the end of a row of patches, a query of a
    Q-Former, a patch of padding. Such a token of a picture still has its index; others have -1.

    Raises AtlasError when the number of image tokens is not what the geometry of the family gives.
    """
    ids_BT = torch.as_tensor(inputs["input_ids"])
    is_image_BT = ids_BT == media_ids(config).get("image", -1)
    boxes_T4 = torch.full((ids_BT.shape[1], 4), float("nan"))
    picture_T = torch.full((ids_BT.shape[1],), -1)
    picture = 0
    for b, is_image_T in enumerate(is_image_BT):
        positions = is_image_T.nonzero()[:, 0]
        done = 0
        while done < len(positions):
            if picture >= len(sizes):
                raise AtlasError(
                    f"token_boxes: row {b} has more image tokens than {len(sizes)} pictures give; pass the "
                    "sizes of all pictures of the batch"
                )
            boxes_N4 = fixed_grid(config, sizes[picture], image_processor)
            at = positions[done : done + len(boxes_N4)]
            if len(at) < len(boxes_N4):
                raise AtlasError(
                    f"token_boxes: picture {picture} has {len(at)} tokens in row {b}, but "
                    f"{config.model_type}'s geometry gives {len(boxes_N4)}; check image processor and config"
                )
            if b == row:
                boxes_T4[at], picture_T[at] = boxes_N4, picture
            done += len(at)
            picture += 1
    return boxes_T4, picture_T


def fixed_grid(config: Any, size: tuple[int, int], image_processor: Any) -> Tensor:
    """(N,4) of a picture that is resized to one size (LLaVA, PaliGemma, Gemma 3)."""
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    count = getattr(config, "mm_tokens_per_image", None)
    if count is not None:
        side = math.isqrt(count)
    first = getattr(config, "vision_feature_select_strategy", "default") == "full"
    grid_N4 = grid_boxes(side, side, seen_region(size, image_processor))
    grid_N4 = clipped(grid_N4, size)
    return torch.cat([torch.full((int(first), 4), float("nan")), grid_N4])


def grid_boxes(rows: int, columns: int, region: tuple[float, float, float, float]) -> Tensor:
    """(rows * columns, 4): cells of `region` (left, top, right, bottom), row by row."""
    left, top, right, bottom = region
    x = torch.linspace(left, right, columns + 1, dtype=torch.float64)
    y = torch.linspace(top, bottom, rows + 1, dtype=torch.float64)
    cells = [
        x[:-1].expand(rows, -1),
        y[:-1, None].expand(-1, columns),
        x[1:].expand(rows, -1),
        y[1:, None].expand(-1, columns),
    ]
    return torch.stack(cells, -1).reshape(-1, 4).float()


def clipped(boxes_N4: Tensor, size: tuple[int, int]) -> Tensor:
    """The boxes within the picture; NaN for those outside it (padding)."""
    height, width = size
    limit = torch.tensor([width, height, width, height], dtype=boxes_N4.dtype)
    inside = torch.minimum(boxes_N4.clamp(min=0), limit)
    empty = (inside[:, 2] <= inside[:, 0]) | (inside[:, 3] <= inside[:, 1])
    return inside.masked_fill(empty[:, None], float("nan"))


def seen_region(size: tuple[int, int], image_processor: Any) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) in original pixels of what fills the model's input; it is larger than the
    picture where the processor pads."""
    height, width = size
    region = (0.0, 0.0, float(width), float(height))
    if image_processor is None:
        return region
    if getattr(image_processor, "do_pad", False) and type(image_processor).__name__.startswith("LlavaImage"):
        # LLaVA pads to a square around the picture, before it resizes.
        side = max(height, width)
        left, top = -((side - width) // 2), -((side - height) // 2)
        region, height, width = (float(left), float(top), float(left + side), float(top + side)), side, side
    if not getattr(image_processor, "do_center_crop", False):
        return region
    target = dict(image_processor.size) if getattr(image_processor, "do_resize", True) else {}
    if "shortest_edge" in target and target["shortest_edge"] is not None:
        shortest = target["shortest_edge"]
        # transformers rounds the longer side down.
        scale_y = (shortest if height <= width else int(shortest * height / width)) / height
        scale_x = (shortest if width <= height else int(shortest * width / height)) / width
    elif target.get("height"):
        scale_y, scale_x = target["height"] / height, target["width"] / width
    else:
        scale_y = scale_x = 1.0
    crop = dict(image_processor.crop_size)
    top = math.floor((height * scale_y - crop["height"]) / 2)
    left = math.floor((width * scale_x - crop["width"]) / 2)
    return (
        region[0] + left / scale_x,
        region[1] + top / scale_y,
        region[0] + (left + crop["width"]) / scale_x,
        region[1] + (top + crop["height"]) / scale_y,
    )
