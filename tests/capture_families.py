"""Families of vision-language models of transformers: tiny ones and inputs with two images in the first
text, one in the second, which is padded at the left."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from capture_models import IDS, RIGHT, noise
from capture_tiny import IMAGE, tiny_model

Inputs = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """model: class of transformers. pixels: what the processor gives besides the text. tokens: of each
    image of each text. change: of the small configuration."""

    model: str
    pixels: Callable[[], Inputs]
    tokens: tuple[tuple[int, ...], ...] = ((9, 9), (9,))
    change: Inputs = field(default_factory=dict)
    own: Callable[[Inputs], Inputs] = lambda inputs: inputs


def flat() -> Inputs:
    return {"pixel_values": noise(3, 3, 24, 24)}


def named(name: str) -> Callable[[], Inputs]:
    return lambda: {name: noise(3, 3, 24, 24)}


def sized() -> Inputs:
    """Pixtral: images of any size, padded to the largest."""
    return {"pixel_values": noise(3, 3, 32, 32), "image_sizes": torch.tensor([[32, 32], [16, 32], [32, 16]])}


def tiled() -> Inputs:
    """LLaVA-NeXT: a thumbnail and tiles; here 2 × 2 for square images."""
    return {"pixel_values": noise(3, 5, 3, 24, 24), "image_sizes": torch.tensor([[48, 48]] * 3)}


def per_row(size: int) -> Callable[[], Inputs]:
    """Idefics: (B, images, 3, h, w), where an image of zeros is none."""

    def pixels() -> Inputs:
        pixel_values = noise(2, 2, 3, size, size)
        pixel_values[1, 1] = 0
        return {"pixel_values": pixel_values}

    return pixels


def patches(patch: int = 8) -> Inputs:
    """Qwen-VL: patches of all images in a row, and their grids."""
    grid = torch.tensor([[1, 4, 4], [1, 2, 4], [1, 4, 2]])
    return {"pixel_values": noise(32, 3 * patch * patch), "image_grid_thw": grid}


def typed(inputs: Inputs) -> Inputs:
    return inputs | {"mm_token_type_ids": (inputs["input_ids"] == IMAGE).long()}


MERGED = ((4, 2), (2,))
NEXT = {"image_grid_pinpoints": [[48, 48]]}
LARGER = {"vision_config": {"image_size": 32}}


def square(size: int) -> Callable[[], Inputs]:
    return lambda: {"pixel_values": noise(3, 3, size, size)}


def qwen(
    model: str,
    rope: list[int] | None = None,
    partial: float = 1.0,
    pixels: Callable[[], Inputs] = patches,
    **text: Any,
) -> Family:
    if rope:
        text["rope_parameters"] = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": rope}
        text["rope_parameters"]["partial_rotary_factor"] = partial
    return Family(model, pixels, MERGED, {"text_config": text}, typed)


def decoded(inputs: Inputs) -> Inputs:
    """An encoder-decoder reads its text, and writes another."""
    return inputs | {"decoder_input_ids": torch.tensor([[1, 4, 5, 6], [1, 7, 8, 9]])}


def pair(**more: Any) -> Callable[[], Inputs]:
    """One image for each text."""
    return lambda: {"pixel_values": noise(2, 3, 24, 24)} | more


def with_qformer_text(inputs: Inputs) -> Inputs:
    return inputs | {"qformer_input_ids": IDS, "qformer_attention_mask": RIGHT}


def with_places(inputs: Inputs) -> Inputs:
    return inputs | {"image_embeds_position_mask": (inputs["input_ids"] == IMAGE).long()}


def crossing() -> Inputs:
    """Idefics: images are keys of cross-attention."""
    seen = torch.zeros(2, 3, 2)
    seen[0, 1:], seen[1, 2:, 0] = 1, 1
    return {"pixel_values": noise(2, 2, 3, 24, 24), "image_attention_mask": seen}


def mllama() -> Inputs:
    """Two images of up to four tiles for the first text, one for the second."""
    tiles = torch.tensor([[[1, 1, 1, 1], [1, 0, 0, 0]], [[1, 1, 0, 0], [0, 0, 0, 0]]])
    found = {"pixel_values": noise(2, 2, 4, 3, 24, 24), "aspect_ratio_mask": tiles}
    seen = torch.zeros(2, 11, 2, 4, dtype=torch.long)
    seen[0, 2:, 0], seen[0, 5:, 1, :1], seen[1, 6:, 0, :2] = 1, 1, 1
    return found | {"aspect_ratio_ids": torch.tensor([[6, 1], [2, 0]]), "cross_attention_mask": seen}


def naflex() -> Inputs:
    """SigLIP 2: patches of each image, padded to the longest."""
    mask = torch.zeros(3, 16, dtype=torch.long)
    for image, count in enumerate((16, 8, 8)):
        mask[image, :count] = 1
    shapes = torch.tensor([[4, 4], [2, 4], [4, 2]])
    return {"pixel_values": noise(3, 16, 192), "spatial_shapes": shapes, "pixel_attention_mask": mask}


def unfolded() -> Inputs:
    """PaddleOCR-VL: as Qwen-VL, but patches keep their axes."""
    return patches() | {"pixel_values": noise(32, 3, 8, 8)}


def merging() -> Inputs:
    return patches() | {"image_merge_sizes": torch.tensor([2, 2, 2])}


QFORMER = {"num_query_tokens": 4, "image_token_index": IMAGE, "text_config": {"word_embed_proj_dim": 32}}
KOSMOS = {"latent_query_num": 4, "text_config": {"layers": 2, "attention_heads": 4, "ffn_dim": 48}}
PERCEIVER = {"resampler_n_latents": 4, "resampler_depth": 1, "resampler_n_heads": 4, "resampler_head_dim": 8}
MLLAMA_VISION = {"intermediate_layers_indices": [0], "vision_output_dim": 64, "max_num_tiles": 4}
MIXED = {"layer_types": ["linear_attention", "full_attention"]}
FAMILIES: dict[str, Family] = {
    "aria": Family(
        "AriaForConditionalGeneration", flat, ((4, 4), (4,)), {"projector_patch_to_query_dict": {9: 4}}
    ),
    "aya_vision": Family("AyaVisionForConditionalGeneration", square(32), ((4, 4), (4,)), LARGER),
    "blip-2": Family("Blip2ForConditionalGeneration", pair(), ((4,), (4,)), QFORMER),
    "cosmos3_omni": qwen("Cosmos3OmniForConditionalGeneration"),
    "deepseek_vl": Family("DeepseekVLForConditionalGeneration", flat),
    "exaone4_5": qwen("Exaone4_5_ForConditionalGeneration"),
    "gemma3": Family("Gemma3ForConditionalGeneration", flat),
    "glm46v": qwen("Glm46VForConditionalGeneration", [1, 1, 2]),
    "glm4v": qwen("Glm4vForConditionalGeneration", [1, 1, 2]),
    "glm4v_moe": qwen("Glm4vMoeForConditionalGeneration", [1, 1, 0], 0.5),
    "glm_ocr": qwen("GlmOcrForConditionalGeneration", [1, 1, 2]),
    "got_ocr2": Family("GotOcr2ForConditionalGeneration", flat, ((1, 1), (1,))),
    "git": Family("GitForCausalLM", pair(), ((), ())),
    "hyperclovax_vision_v2": qwen("HyperCLOVAXVisionV2ForConditionalGeneration"),
    "idefics": Family("IdeficsForVisionText2Text", crossing, ((), ()), {"cross_layer_interval": 1}),
    "idefics2": Family(
        "Idefics2ForConditionalGeneration", per_row(24), ((4, 4), (4,)), {"perceiver_config": PERCEIVER}
    ),
    "idefics3": Family("Idefics3ForConditionalGeneration", per_row(32), ((4, 4), (4,)), LARGER),
    "instructblip": Family(
        "InstructBlipForConditionalGeneration", pair(), ((4,), (4,)), QFORMER, with_qformer_text
    ),
    "internvl": Family(
        "InternVLForConditionalGeneration",
        square(32),
        ((4, 4), (4,)),
        {"vision_config": {"image_size": [32, 32]}, "image_seq_length": 4},
    ),
    "kosmos-2": Family("Kosmos2ForConditionalGeneration", pair(), ((4,), (4,)), KOSMOS, with_places),
    "lfm2_vl": Family("Lfm2VlForConditionalGeneration", naflex, MERGED),
    "lighton_ocr": Family("LightOnOcrForConditionalGeneration", sized, MERGED),
    "llava": Family("LlavaForConditionalGeneration", flat),
    "llava_next": Family("LlavaNextForConditionalGeneration", tiled, ((51, 51), (51,)), NEXT),
    "llava_onevision": Family("LlavaOnevisionForConditionalGeneration", tiled, ((51, 51), (51,)), NEXT),
    "llava_next_video": Family("LlavaNextVideoForConditionalGeneration", tiled, ((51, 51), (51,)), NEXT),
    "minimax_m3_vl": qwen("MiniMaxM3SparseForConditionalGeneration"),
    "mistral3": Family("Mistral3ForConditionalGeneration", sized, MERGED),
    "mllama": Family(
        "MllamaForConditionalGeneration",
        mllama,
        ((1, 1), (1,)),
        {"text_config": {"cross_attention_layers": [1]}, "vision_config": MLLAMA_VISION},
    ),
    "ovis2": Family("Ovis2ForConditionalGeneration", flat),
    "paddleocr_vl": qwen("PaddleOCRVLForConditionalGeneration", [1, 1, 2], pixels=unfolded),
    "paligemma": Family("PaliGemmaForConditionalGeneration", flat),
    "qwen2_5_vl": qwen("Qwen2_5_VLForConditionalGeneration", [1, 1, 2]),
    "qwen2_vl": qwen("Qwen2VLForConditionalGeneration", [1, 1, 2]),
    "qwen3_5": qwen("Qwen3_5ForConditionalGeneration", **MIXED),
    "qwen3_5_moe": qwen("Qwen3_5MoeForConditionalGeneration", **MIXED),
    "qwen3_vl": qwen("Qwen3VLForConditionalGeneration"),
    "qwen3_vl_moe": qwen("Qwen3VLMoeForConditionalGeneration"),
    "smolvlm": Family("SmolVLMForConditionalGeneration", per_row(32), ((4, 4), (4,)), LARGER),
    "t5gemma2": Family("T5Gemma2ForConditionalGeneration", flat, own=decoded),
    "video_llama_3": qwen("VideoLlama3ForConditionalGeneration", pixels=merging),
    "video_llava": Family("VideoLlavaForConditionalGeneration", named("pixel_values_images")),
    "vipllava": Family(
        "VipLlavaForConditionalGeneration",
        flat,
        change={"vision_feature_layers": [-1, -2], "vision_config": {"num_hidden_layers": 4}},
    ),
}


@functools.cache
def family(name: str) -> tuple[Any, Inputs]:
    """(model, inputs) of a family."""
    import transformers

    transformers.logging.set_verbosity_error()
    made = FAMILIES[name]
    model = tiny_model(getattr(transformers, made.model), **made.change)
    ids = text_with(made.tokens)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()} | made.pixels()
    return model, made.own(inputs)


def text_with(tokens: tuple[tuple[int, ...], ...]) -> torch.Tensor:
    """(B,T) ids: for each image its number of image tokens, then a word; padded with 0 at the left."""
    rows = [
        [1, 5, *(i for k, n in enumerate(row) for i in [57, *[IMAGE] * n, 58, 6 + k]), 9] for row in tokens
    ]
    longest = max(map(len, rows))
    return torch.tensor([[0] * (longest - len(row)) + row for row in rows])
