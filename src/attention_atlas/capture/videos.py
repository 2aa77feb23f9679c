"""Where in the frames of a video each video token of the sequence lies.

boxes_T4, video_T, frame_T = video_boxes(model.config, inputs, [(height, width)], processor.video_processor)

Models that read a video as a series of images (InternVL, SmolVLM) have image tokens: use `token_boxes`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.box_families import ImageInput, fixed, grid_boxes, nowhere, seen_region
from attention_atlas.capture.boxes import clipped
from attention_atlas.capture.token_roles import roles_of
from attention_atlas.errors import AtlasError

# (boxes of a frame's tokens, frames that share them, tokens after the last frame)
Cut = tuple[Tensor, int, int]


def video_boxes(
    config: Any,
    inputs: Mapping[str, Any],
    sizes: Sequence[tuple[int, int]],
    video_processor: Any = None,
    row: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """(boxes_T4, video_T, frame_T) for one row of the batch: for each of its T tokens the box (left, top,
    right, bottom) in pixels of the original frame, the video's index in `sizes`, and the index of the frame
    among those that the model received (the first of them where a token joins several, as in Qwen2-VL).

    config: the model's. inputs: what the processor returned. sizes: (height, width) of all videos of the
    batch, in order. video_processor: its cropping is undone; None: none. row: which element of the
    batch.

    Tokens outside videos have a box of NaN and -1 for the others; so does the token that ends a video
    (LLaVA-OneVision), except for its `video_T`.

    Raises AtlasError for a family whose geometry is not known, and when the number of video tokens does
    not match it.
    """
    roles = roles_of(inputs, config)
    boxes_T4 = torch.full((len(roles[row]), 4), float("nan"))
    video_T, frame_T = (torch.full((len(roles[row]),), -1) for _ in range(2))
    index = 0
    for b, found in enumerate(roles):
        places = [t for t, role in enumerate(found) if role == "video"]
        while places:
            if index == len(sizes):
                raise AtlasError(
                    f"video_boxes: row {b} has more video tokens than {len(sizes)} videos give; pass the "
                    "sizes of all videos"
                )
            video = ImageInput(config, inputs, index, sizes[index], video_processor, True)
            boxes_N4, frames, ends = _cut(video)
            steps = _steps(inputs, index)
            count = steps * len(boxes_N4) + ends
            own, places = places[:count], places[count:]
            if len(own) < count:
                raise AtlasError(
                    f"video_boxes: row {b} has {len(own)} tokens for video {index}, but the geometry of "
                    f"{config.model_type} gives {count}; check sizes, processor and config"
                )
            if b == row:
                all_N4 = clipped(boxes_N4, sizes[index]).repeat(steps, 1)
                boxes_T4[own] = torch.cat([all_N4, nowhere(ends)])
                video_T[own] = index
                in_order = torch.arange(steps).repeat_interleave(len(boxes_N4)) * frames
                frame_T[own] = torch.cat([in_order, torch.full((ends,), -1)])
            index += 1
    if index < len(sizes):
        raise AtlasError(f"video_boxes: {len(sizes)} sizes, but the inputs hold {index} videos; pass theirs")
    return boxes_T4, video_T, frame_T


def _steps(inputs: Mapping[str, Any], index: int) -> int:
    """How many frames, or groups of frames that share tokens, a video has."""
    if "video_grid_thw" in inputs:
        return int(torch.as_tensor(inputs["video_grid_thw"])[index][0])
    return int(inputs["pixel_values_videos"].shape[1])


def _merged(video: ImageInput) -> Cut:
    """Qwen-VL: a grid of patches, of which a square of `spatial_merge_size` becomes one token;
    `temporal_patch_size` frames share their tokens."""
    vision = video.config.vision_config
    _, rows, columns = torch.as_tensor(video.inputs["video_grid_thw"])[video.index].tolist()
    merge = vision.spatial_merge_size
    return grid_boxes(rows // merge, columns // merge, video.whole), vision.temporal_patch_size, 0


def _fixed(video: ImageInput) -> Cut:
    """Video-LLaVA: each frame as a separate image that keeps its class token, which images lose."""
    grid_N4 = fixed(video)
    if video.config.vision_feature_select_strategy != "full":
        grid_N4 = torch.cat([nowhere(1), grid_N4])
    return grid_N4, 1, 0


def _pooled(video: ImageInput) -> Cut:
    """LLaVA-NeXT-Video: squares of `spatial_pool_stride` patches are averaged; incomplete squares are left
    out."""
    config = video.config
    patches = config.vision_config.image_size // config.vision_config.patch_size
    side = patches // config.spatial_pool_stride
    left, top, right, bottom = seen_region(video.size, video.processor)
    share = side * config.spatial_pool_stride / patches
    region = left, top, left + (right - left) * share, top + (bottom - top) * share
    return grid_boxes(side, side, region), 1, 0


def _halved(video: ImageInput) -> Cut:
    """LLaVA-OneVision: the grid of each frame is scaled down to half of its side; one token ends the
    video."""
    vision = video.config.vision_config
    side = math.ceil(vision.image_size // vision.patch_size / 2)
    return grid_boxes(side, side, seen_region(video.size, video.processor)), 1, 1


FAMILIES: dict[str, Callable[[ImageInput], Cut]] = {
    "video_llava": _fixed,
    "llava_next_video": _pooled,
    "llava_onevision": _halved,
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe"), _merged),
}


def _cut(video: ImageInput) -> Cut:
    family = video.config.model_type
    if family not in FAMILIES:
        raise AtlasError(
            f"video_boxes: {family}: its geometry is not known; known: {', '.join(FAMILIES)}. Add it to "
            "capture/videos.py"
        )
    return FAMILIES[family](video)
