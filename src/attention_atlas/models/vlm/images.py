"""The image processor of the towers trained here: transformers' CLIP processor with PIL."""

from __future__ import annotations

from typing import Any


def mini_image_processor(image_size: int) -> Any:
    """Scale the shorter side to `image_size`, crop the centre, scale values to -1..1."""
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": image_size},
        crop_size={"height": image_size, "width": image_size},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
