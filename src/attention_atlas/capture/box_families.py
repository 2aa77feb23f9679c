"""How model families cut an image into tokens: the boxes of one image's tokens, in order.

Each function takes (ImageInput) and returns boxes (N,4): left, top, right, bottom in pixels of the original
image, NaN for a token without a place. Boxes may reach over the edge, into padding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.token_roles import parts
from attention_atlas.errors import AtlasError

Region = tuple[float, float, float, float]


@dataclass(frozen=True)
class ImageInput:
    """config: the model's. inputs: the processor's. index: of the image in the batch. size: (height,
    width). processor: the image processor, or None. alone: whether it is the only image of its text."""

    config: Any
    inputs: Mapping[str, Any]
    index: int
    size: tuple[int, int]
    processor: Any
    alone: bool

    @property
    def whole(self) -> Region:
        return 0.0, 0.0, float(self.size[1]), float(self.size[0])

    def setting(self, name: str) -> Any:
        """A setting of the image processor, which this family needs. Raises AtlasError without one."""
        if self.processor is None:
            raise AtlasError(
                f"token_boxes: {self.config.model_type}: how images are cut depends on their processor; "
                "pass image_processor=processor.image_processor"
            )
        return getattr(self.processor, name)


def fixed(image: ImageInput) -> Tensor:
    """One grid over what the processor keeps (LLaVA, PaliGemma, Gemma 3)."""
    config = next(part for part in parts(image.config) if hasattr(part, "vision_config"))
    vision = config.vision_config
    if vision.model_type == "pixtral":
        return sized(image)
    count = getattr(config, "mm_tokens_per_image", None)
    side = math.isqrt(count) if count else _edge(vision.image_size) // _edge(vision.patch_size)
    grid_N4 = grid_boxes(side, side, seen_region(image.size, image.processor))
    # A class token has no place. SigLIP has none, and LLaVA's `default` drops its first patch instead.
    strategy = getattr(config, "vision_feature_select_strategy", "")
    if "siglip" in vision.model_type:
        return grid_N4[int(strategy == "default") :]
    return torch.cat([nowhere(int(strategy == "full")), grid_N4])


def sized(image: ImageInput) -> Tensor:
    """Pixtral: an image in its own size, in squares of `spatial_merge_size` patches; row ends are separate
    tokens."""
    config = image.config
    height, width = torch.as_tensor(image.inputs["image_sizes"])[image.index].tolist()
    edge = _edge(config.vision_config.patch_size) * getattr(config, "spatial_merge_size", 1)
    return grid_boxes(height // edge, width // edge, image.whole)


def merged(image: ImageInput) -> Tensor:
    """Qwen-VL, GLM-4V, VideoLLaMA 3: a grid of patches, of which a square of `spatial_merge_size` becomes one
    token; the frames of a clip one after the other."""
    frames, rows, columns = torch.as_tensor(image.inputs["image_grid_thw"])[image.index].tolist()
    if "image_merge_sizes" in image.inputs:
        merge = int(image.inputs["image_merge_sizes"][image.index])
    else:
        merge = image.config.vision_config.spatial_merge_size
    return grid_boxes(rows // merge, columns // merge, image.whole).repeat(frames, 1)


def anyres(image: ImageInput) -> Tensor:
    """LLaVA-NeXT, LLaVA-OneVision: the whole image, then tiles of the image, enlarged and padded to the
    best resolution; rows of the tiles' common grid that show only padding are left out, and each row ends
    with an extra token."""
    from transformers.image_processing_utils import select_best_resolution

    config, (height, width) = image.config, image.size
    edge = config.vision_config.image_size
    side = edge // config.vision_config.patch_size
    base_N4 = grid_boxes(side, side, image.whole)
    if config.model_type == "llava_onevision" and not image.alone:
        return torch.cat([base_N4, nowhere(1)])  # several images of one text are not cut
    high, wide = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = high // edge * side, wide // edge * side
    # The processor's enlarged image, and its place on the canvas.
    if wide / width < high / height:
        inner = wide, min(math.ceil(height * wide / width), high)
    else:
        inner = min(math.ceil(width * high / height), wide), high
    scale_x, scale_y = width / inner[0], height / inner[1]
    left, top = -((wide - inner[0]) // 2) * scale_x, -((high - inner[1]) // 2) * scale_y
    grid = grid_boxes(rows, columns, (left, top, left + wide * scale_x, top + high * scale_y))
    grid = grid.reshape(rows, columns, 4)
    if width / height > columns / rows:
        cut = (rows - int(round(height * columns / width, 7))) // 2
        grid = grid[cut : rows - cut]
    else:
        cut = (columns - int(round(width * rows / height, 7))) // 2
        grid = grid[:, cut : columns - cut]
    if config.model_type == "llava_onevision":
        most = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(grid.shape[0] * grid.shape[1] / (most * side**2))
        if ratio > 1.1:
            region = (*grid[0, 0, :2].tolist(), *grid[-1, -1, 2:].tolist())
            rows, columns = int(grid.shape[0] // ratio), int(grid.shape[1] // ratio)
            grid = grid_boxes(rows, columns, region).reshape(rows, columns, 4)
    ended = torch.cat([grid, nowhere(len(grid))[:, None]], 1).flatten(0, 1)
    return torch.cat([base_N4, ended])


def shuffled(image: ImageInput) -> Tensor:
    """Idefics 3, SmolVLM: tiles row by row, then the whole image; pixel shuffle leaves one token of
    `scale_factor` × `scale_factor` patches."""
    vision = image.config.vision_config
    side = _edge(vision.image_size) // _edge(vision.patch_size) // image.config.scale_factor
    whole_N4 = grid_boxes(side, side, image.whole)
    if not image.setting("do_image_splitting"):
        return whole_N4
    height, width = image.size
    if image.setting("do_resize"):
        longest = dict(image.setting("size"))["longest_edge"]
        # The shorter side becomes even.
        if width >= height:
            width, height = longest, math.ceil(int(longest / (width / height)) / 2) * 2
        else:
            width, height = math.ceil(int(longest * (width / height)) / 2) * 2, longest
    edge = dict(image.setting("max_image_size"))["longest_edge"]
    if width >= height:
        columns = math.ceil(width / edge)
        rows = math.ceil(int(columns * edge / (width / height)) / edge)
    else:
        rows = math.ceil(height / edge)
        columns = math.ceil(int(rows * edge * (width / height)) / edge)
    if rows == columns == 1:
        return whole_N4
    return torch.cat([*tiles(rows, columns, side, image.whole), whole_N4])


def canvas(image: ImageInput) -> Tensor:
    """InternVL, GOT-OCR 2, Aya Vision: tiles of the image, stretched to the best arrangement, row by row,
    then a thumbnail if there are several."""
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

    config = image.config
    if config.model_type == "aya_vision":
        vision = config.vision_config
        side = vision.image_size // vision.patch_size // config.downsample_factor
    elif config.model_type == "got_ocr2":
        # Two convolutions, each of which halves the grid.
        side = math.ceil(config.vision_config.image_size / config.vision_config.patch_size / 4)
    else:
        side = math.isqrt(config.image_seq_length)
    whole_N4 = grid_boxes(side, side, image.whole)
    if not image.setting("crop_to_patches"):
        return whole_N4
    size = dict(image.setting("size"))
    limits = image.setting("min_patches"), image.setting("max_patches")
    columns, rows = get_optimal_tiled_canvas(image.size, (size["height"], size["width"]), *limits)
    if rows == columns == 1:
        return whole_N4
    return torch.cat([*tiles(rows, columns, side, image.whole), whole_N4])


def covering(image: ImageInput) -> Tensor:
    """Ovis 2: the whole image, then its tiles row by row if there are several. `hidden_stride` ×
    `hidden_stride` patches become one token, after padding at the right and at the bottom."""
    from transformers.models.ovis2 import image_processing_pil_ovis2 as ovis2

    vision, size = image.config.vision_config, image.size
    columns, rows, most = 1, 1, image.setting("max_patches")
    if image.setting("crop_to_patches") and most > 1:
        tile = dict(image.setting("size"))
        if image.setting("use_covering_area_grid"):
            columns, rows = ovis2.get_min_tile_covering_grid(size, tile["height"], most)
        else:
            limits = image.setting("min_patches"), most
            columns, rows = ovis2.get_optimal_tiled_canvas(size, (tile["height"], tile["width"]), *limits)
    patches = vision.image_size // vision.patch_size
    side = math.ceil(patches / vision.hidden_stride)
    several = grid_boxes(rows, columns, image.whole) if rows * columns > 1 else torch.empty(0, 4)
    cut = []
    for left, top, right, bottom in [image.whole, *several.tolist()]:
        scale = side * vision.hidden_stride / patches
        end = left + (right - left) * scale, top + (bottom - top) * scale
        cells = grid_boxes(side, side, (left, top, *end))
        cut.append(cells.minimum(torch.tensor([right, bottom, right, bottom])))
    return torch.cat(cut)


def queries(image: ImageInput) -> Tensor:
    """Learned queries see the whole image (Q-Former, resampler) or a tile of it (Aria): no place."""
    config = image.config
    if config.model_type == "aria":
        edge = int(image.inputs["pixel_values"].shape[-1]) // config.vision_config.patch_size
        count = config.projector_patch_to_query_dict[edge**2]
        if image.processor is not None and image.processor.split_image:
            count *= image.processor.get_number_of_image_patches(*image.size)
        return nowhere(count)
    counts = (getattr(config, name, None) for name in ("num_query_tokens", "latent_query_num"))
    return nowhere(int(next(filter(None, counts), None) or config.perceiver_config.resampler_n_latents))


def nowhere(count: int) -> Tensor:
    return torch.full((count, 4), float("nan"))


def tiles(rows: int, columns: int, side: int, region: Region) -> list[Tensor]:
    """The grids of all tiles, row by row."""
    return [
        grid_boxes(side, side, (left, top, right, bottom))
        for left, top, right, bottom in grid_boxes(rows, columns, region).tolist()
    ]


def grid_boxes(rows: int, columns: int, region: Region) -> Tensor:
    """(rows · columns, 4): cells of `region` (left, top, right, bottom), row by row."""
    left, top, right, bottom = region
    x = torch.linspace(left, right, columns + 1, dtype=torch.float64)
    y = torch.linspace(top, bottom, rows + 1, dtype=torch.float64)[:, None]
    cells = [x[:-1].expand(rows, -1), y[:-1].expand(-1, columns)]
    cells += [x[1:].expand(rows, -1), y[1:].expand(-1, columns)]
    return torch.stack(cells, -1).reshape(-1, 4).float()


def seen_region(size: tuple[int, int], processor: Any) -> Region:
    """The region that fills the model's input, in pixels of the original; larger than the image where the
    processor pads, smaller where it crops."""
    height, width = size
    left, top = 0.0, 0.0
    if processor is None:
        return left, top, float(width), float(height)
    if getattr(processor, "do_pad", False) and hasattr(processor, "pad_to_square"):
        # Padded to a square around the image (LLaVA if asked to, Janus, DeepSeek-VL).
        side = max(height, width)
        left, top = -float((side - width) // 2), -float((side - height) // 2)
        height = width = side
    if not getattr(processor, "do_center_crop", False):
        return left, top, left + width, top + height
    target = dict(processor.size) if getattr(processor, "do_resize", True) else {}
    high, wide = height, width  # of the resized image
    if shortest := target.get("shortest_edge"):
        # transformers rounds the longer side down.
        high = shortest if height <= width else int(shortest * height / width)
        wide = shortest if width <= height else int(shortest * width / height)
    elif target.get("height"):
        high, wide = target["height"], target["width"]
    crop = dict(processor.crop_size)
    pixel_x, pixel_y = width / wide, height / high
    left += (wide - crop["width"]) // 2 * pixel_x
    top += (high - crop["height"]) // 2 * pixel_y
    return left, top, left + crop["width"] * pixel_x, top + crop["height"] * pixel_y


def _edge(size: Any) -> int:
    return int(size[0] if isinstance(size, list | tuple) else size)


FAMILIES: dict[str, Callable[[ImageInput], Tensor]] = {
    **dict.fromkeys(
        ("llava", "vipllava", "paligemma", "gemma3", "video_llava", "janus", "deepseek_vl"), fixed
    ),
    **dict.fromkeys(("t5gemma2", "shieldgemma2", "colpali"), fixed),
    **dict.fromkeys(("mistral3", "lighton_ocr"), sized),
    **dict.fromkeys(("llava_next", "llava_next_video", "llava_onevision"), anyres),
    **dict.fromkeys(("idefics3", "smolvlm"), shuffled),
    **dict.fromkeys(("internvl", "got_ocr2", "aya_vision"), canvas),
    "ovis2": covering,
    **dict.fromkeys(("blip-2", "instructblip", "kosmos-2", "kosmos-2.5", "idefics2", "aria"), queries),
}


def boxes_of(image: ImageInput) -> Tensor:
    """Boxes of an image's tokens. Raises AtlasError for a family whose geometry is not known."""
    config = image.config
    known = FAMILIES.get(config.model_type)
    merging = hasattr(getattr(config, "vision_config", None), "spatial_merge_size")
    merging = merging or "image_merge_sizes" in image.inputs
    if known is None and merging and "image_grid_thw" in image.inputs:
        known = merged
    if known is None:
        raise AtlasError(
            f"token_boxes: {config.model_type}: its geometry is not known; known: {', '.join(FAMILIES)}, and "
            "those with image_grid_thw. Add it to capture/box_families.py"
        )
    return known(image)
