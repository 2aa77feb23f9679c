"""A model and its processor by hub id or folder. Unusable ones give one-line errors."""

from __future__ import annotations

from typing import Any

from attention_atlas.errors import AtlasError, ConfigError, loading

REMEDY = "give a hub id or a folder that save_pretrained wrote"


def load(name: str, device: str = "auto", dtype: str = "auto") -> tuple[Any, Any]:
    """(model in evaluation mode, processor).

    device: auto, cpu, cuda, ...; with auto on a GPU, accelerate spreads a model over several. dtype: see
    `resolved_precision`. Attention uses the default of the checkpoint's class (SDPA where possible).

    Raises ConfigError for a name that transformers does not find, a model without images, or a processor
    that needs a missing package.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    from attention_atlas.devices import resolve_device
    from attention_atlas.models.vlm.hub import check_complete, resolved_precision
    from attention_atlas.models.vlm.processors import load_processor

    with loading(f"MODEL: '{name}'", REMEDY):
        config = AutoConfig.from_pretrained(name)
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise ConfigError(
            f"MODEL: '{name}': a '{config.model_type}' is not a vision-language model to transformers "
            "(AutoModelForImageTextToText); give one that is"
        )
    try:
        processor = load_processor(name)
    except AtlasError as error:
        raise ConfigError(f"MODEL: '{name}': {str(error).removeprefix(f'{name}: ')}") from None
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ConfigError(
            f"MODEL: '{name}': its {type(processor).__name__} reads no images; save the model's processor "
            "beside it (processor.save_pretrained)"
        )
    found = resolve_device(device)
    weights, eight_bit = resolved_precision(dtype, found)
    options: dict[str, Any] = {"dtype": weights}
    if found.startswith("cuda") and device == "auto":
        options["device_map"] = "auto"
    if eight_bit:
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    with loading(f"MODEL: '{name}': weights", "download the whole checkpoint"):
        loaded: Any = AutoModelForImageTextToText.from_pretrained(name, **options, output_loading_info=True)
    model, report = loaded
    check_complete(report, f"MODEL: '{name}'")
    if "device_map" not in options and not eight_bit:
        model.to(found)
    return model.eval(), processor
