"""The keys of a cross-attention to images, for models whose images are not tokens of the sequence.

keys = image_keys(model.config, inputs, [image.size[::-1]])
left, top, right, bottom = keys.boxes_K4[k]          # pixels of image keys.image_K[k]

Axes: K key, N key of one image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.box_families import ImageInput, nowhere, tiles
from attention_atlas.capture.boxes import clipped
from attention_atlas.errors import AtlasError


@dataclass(frozen=True)
class ImageKeys:
    """boxes_K4: left, top, right, bottom in pixels of the original image; NaN for a key without a place.
    image_K: index of the image, −1 for padding. names: human-readable. roles, of each key:

    - image: a patch that shows a part of the image
    - class: the class token of an image or tile
    - empty: a patch that shows only what the processor added around the image; the model can attend to it
    - pad: belongs to a missing tile or image; masked
    """

    boxes_K4: Tensor
    image_K: Tensor
    roles: list[str]
    names: list[str]


def image_keys(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    image_processor: Any = None,
    row: int = 0,
) -> ImageKeys:
    """The keys of one row of the batch, in the model's order.

    config: the model's. inputs: what the processor returned. sizes: (height, width) of all images of the
    batch, in order. image_processor: its cropping is undone.

    Raises AtlasError for a family that is not in CROSS, and when `sizes` has more or fewer images than the
    inputs.
    """
    if config.model_type not in CROSS:
        raise AtlasError(
            f"image_keys: {config.model_type}: the keys of its cross-attention are not known; known: "
            f"{', '.join(CROSS)}. Add it to capture/cross_boxes.py"
        )
    there_BM, keys_of = CROSS[config.model_type]
    there = [[bool(x) for x in slots] for slots in there_BM(inputs)]
    if sum(map(sum, there)) != len(sizes):
        raise AtlasError(
            f"image_keys: {len(sizes)} sizes, but the inputs hold {sum(map(sum, there))} images; pass "
            "those of all images"
        )
    index = sum(map(sum, there[:row]))
    boxes, roles, names, owners = list[Tensor](), list[str](), list[str](), list[int]()
    for slot, filled in enumerate(there[row]):
        # A slot without an image has as many keys as any other.
        size = sizes[index] if filled else (1, 1)
        found = keys_of(ImageInput(config, inputs, index, size, image_processor, alone=True), row, slot)
        plain_N4 = torch.cat([box for _, box in found])
        inside_N4 = clipped(plain_N4, size)
        lost_N = (plain_N4.isfinite() & inside_N4.isnan()).any(1).tolist()
        kinds = [role for role, box in found for _ in range(len(box))]
        if filled:
            kinds = ["empty" if lost else kind for kind, lost in zip(kinds, lost_N)]
        else:
            kinds, inside_N4 = ["pad"] * len(kinds), nowhere(len(kinds))
        boxes.append(inside_N4)
        roles += kinds
        names += [f"key {n} of image {slot + 1}" for n in range(len(kinds))]
        owners += [index if kind != "pad" else -1 for kind in kinds]
        index += filled
    return ImageKeys(torch.cat(boxes), torch.tensor(owners), roles, names)


# Families: (which slots hold an image, keys of a slot as parts of one role) -----------------------------

Parts = list[tuple[str, Tensor]]


def _mllama_there(inputs: Mapping[str, Any]) -> Any:
    return torch.as_tensor(inputs["aspect_ratio_ids"]) > 0


def _mllama(image: ImageInput, row: int, slot: int) -> Parts:
    """Tiles of the image, which is enlarged to fill as few as possible, at their upper left; each tile
    begins with a class token. The processor's arrangement is in the inputs."""
    from transformers.models.mllama.image_processing_pil_mllama import (
        get_all_supported_aspect_ratios,
        get_image_size_fit_to_canvas,
    )

    most, edge = image.inputs["pixel_values"].shape[2], image.inputs["pixel_values"].shape[-1]
    side = edge // _edge(image.config.vision_config.patch_size)
    arrangement = int(torch.as_tensor(image.inputs["aspect_ratio_ids"])[row, slot])
    found: Parts = []
    if arrangement:
        rows, columns = get_all_supported_aspect_ratios(most)[arrangement - 1]
        height, width = image.size
        inner = get_image_size_fit_to_canvas(height, width, rows * edge, columns * edge, edge)
        region = 0.0, 0.0, columns * edge * width / int(inner[1]), rows * edge * height / int(inner[0])
        for tile_N4 in tiles(rows, columns, side, region):
            found += [("class", nowhere(1)), ("image", tile_N4)]
    left = most - len(found) // 2
    return [*found, ("pad", nowhere(left * (1 + side * side)))]


def _edge(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


CROSS: dict[str, tuple[Callable[[Mapping[str, Any]], Any], Callable[[ImageInput, int, int], Parts]]] = {
    "mllama": (_mllama_there, _mllama),
}
