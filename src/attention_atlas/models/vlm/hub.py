"""Real LLaVA and InstructBLIP checkpoints by hub id or path: bf16 or 8-bit if the machine supports it, placed
by a device map, never twice in memory. Unsupported models give one-line errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.models.vlm.inputs import VlmInputs

KINDS = {"llava": "LlavaForConditionalGeneration", "instructblip": "InstructBlipForConditionalGeneration"}
PRECISIONS = ("auto", "float32", "bfloat16", "float16", "8bit")


def checked_config(pretrained: str) -> Any:
    """The checkpoint's configuration. Raises AtlasError if the model is not suitable for study 5."""
    from transformers import AutoConfig

    with loading(f"pretrained: '{pretrained}'"):
        config = AutoConfig.from_pretrained(pretrained)
    if config.model_type not in KINDS:
        raise AtlasError(
            f"{pretrained}: model_type: '{config.model_type}' is not supported; use {' or '.join(KINDS)}, or "
            "model=hub for any family"
        )
    text = config.text_config
    if getattr(text, "is_encoder_decoder", False):
        raise AtlasError(
            f"{pretrained}: text_config: '{text.model_type}' is an encoder-decoder, without a single "
            "stack of layers for image and text; use a vicuna variant"
        )
    if text.model_type not in ("llama", "mistral", "qwen2"):
        raise AtlasError(
            f"{pretrained}: text_config: '{text.model_type}' is not structured like LLaMA (layers, norm, "
            "embed_tokens); use llama, mistral or qwen2"
        )
    return config


def resolved_precision(precision: str, device: str) -> tuple[torch.dtype, bool]:
    """(type of the weights, whether linear layers are in 8 bits) on `device`."""
    if precision not in PRECISIONS:
        raise ConfigError(f"precision: '{precision}' is unknown; use one of {', '.join(PRECISIONS)}")
    cuda = device.startswith("cuda")
    if precision == "8bit":
        from importlib.util import find_spec

        for missing, remedy in (
            (not cuda, "a CUDA device"),
            (find_spec("bitsandbytes") is None, "the package bitsandbytes"),
        ):
            if missing:
                raise ConfigError(f"precision: 8bit needs {remedy}; add it or use bfloat16")
        return torch.float16, True
    if precision != "auto":
        return getattr(torch, precision), False
    if not cuda:
        return torch.float32, False
    return (torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16), False


def check_complete(report: Mapping[str, Any], where: str) -> None:
    """Raise AtlasError if weights of a layer are missing, which transformers fills with random numbers.

    report: what `from_pretrained(..., output_loading_info=True)` returns. Weights outside numbered layers,
    such as a pooler's, may be unused."""
    absent = sorted(key for key in report["missing_keys"] if re.search(r"\.\d+\.", key))
    if absent:
        raise AtlasError(
            f"{where}: weights: {absent[0]}: is missing, one of {len(absent)}; download the whole checkpoint"
        )


def load_hub(
    pretrained: str,
    template: str,
    precision: str = "auto",
    device_map: str | None = "auto",
    device: str = "cpu",
) -> tuple[nn.Module, VlmInputs, dict[str, Any]]:
    """(checkpoint in evaluation mode, its tokenizer and image processor, {}). Weights are read piece by piece
    in their final type (safetensors), so that they are in memory only once.

    pretrained: hub id or folder. template: see VlmInputs. precision: auto is bfloat16 on a GPU that supports
    it, float16 on other GPUs, float32 on a CPU; 8bit needs bitsandbytes and a GPU. device_map: "auto"
    distributes layers over GPUs and memory (needs accelerate), None uses one device.
    """
    import transformers

    config = checked_config(pretrained)
    dtype, eight_bit = resolved_precision(precision, device)
    options: dict[str, Any] = {"dtype": dtype, "low_cpu_mem_usage": True}
    if device.startswith("cuda") and device_map:
        options["device_map"] = device_map
    if eight_bit:
        options["quantization_config"] = transformers.BitsAndBytesConfig(load_in_8bit=True)
    with loading(f"{pretrained}: weights", "download the whole checkpoint"):
        model, report = getattr(transformers, KINDS[config.model_type]).from_pretrained(
            pretrained, **options, output_loading_info=True
        )
    check_complete(report, pretrained)
    if "device_map" not in options and not eight_bit:
        model = model.to(device)
    return model.eval(), hub_inputs(pretrained, config, template), {}


def hub_inputs(pretrained: str, config: Any, template: str) -> VlmInputs:
    """The tokenizers and image processor beside the weights. Raises AtlasError if one is missing."""
    from transformers import AutoTokenizer
    from transformers.models.auto.image_processing_auto import AutoImageProcessor

    qformer_tokenizer = None
    with loading(f"{pretrained}: tokenizer or image processor", "download the whole checkpoint"):
        tokenizer = AutoTokenizer.from_pretrained(pretrained)
        images = AutoImageProcessor.from_pretrained(pretrained, backend="pil")
        if config.model_type == "instructblip":
            # Published folders of this tokenizer have no config.json, which transformers expects by default.
            qformer_tokenizer = AutoTokenizer.from_pretrained(
                pretrained, subfolder="qformer_tokenizer", config=config.qformer_config
            )
    if config.model_type == "instructblip":
        count = int(config.num_query_tokens)
    else:
        count = image_positions(pretrained, config)
    image_id = config.image_token_index if config.image_token_index is not None else config.image_token_id
    if image_id is None:
        raise AtlasError(f"{pretrained}: config.json: lacks image_token_index; use a current conversion")
    return VlmInputs(tokenizer, images, template, int(image_id), int(count), qformer_tokenizer)


def image_positions(pretrained: str, config: Any) -> int:
    """Positions of an image in LLaVA's sequence: the tower's, and with the strategy `default` one less.

    That one is CLIP's class token; SigLIP has none, so `default` drops its first patch. Raises AtlasError for
    a tower whose images have several sizes (Pixtral)."""
    vision = config.vision_config
    if not isinstance(getattr(vision, "image_size", None), int) or vision.model_type == "pixtral":
        raise AtlasError(
            f"{pretrained}: vision_config: '{vision.model_type}' has no fixed number of patches; "
            "use model=hub"
        )
    strategy = getattr(config, "vision_feature_select_strategy", "default")
    has_class_token = "siglip" not in vision.model_type
    return (vision.image_size // vision.patch_size) ** 2 + has_class_token - (strategy == "default")
