"""A vision LLM from its run folder: trained here, or the checkpoint that the folder names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.loaded import LoadedVllm


def load_vllm(folder: str | Path, device: str = "cpu") -> LoadedVllm:
    """Raises AtlasError for a folder without a vision LLM, a broken file, or a model that cannot be used."""
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.models.vlm.hub import HubVllm, load_hub
    from attention_atlas.models.vlm.images import embedded_image_processor
    from attention_atlas.models.vlm.inputs import VllmInputs
    from attention_atlas.models.vlm.instructblip import InstructBlip
    from attention_atlas.models.vlm.llava import Llava
    from attention_atlas.models.vlm.loaded import LoadedVllm
    from attention_atlas.models.vlm.tokenizer import load_tokenizer

    folder = Path(folder)
    model: Any
    model, _, config = load_run(folder)
    name = config["model"].get("name", folder.name)
    if isinstance(model, HubVllm):
        return load_hub(name, model.pretrained, model.template, model.precision, model.device_map, device)
    if not isinstance(model, Llava | InstructBlip):
        raise AtlasError(
            f"{folder / 'config.yaml'}: model: {type(model).__name__} is no vision LLM; "
            "name one that was tuned (llava_embedded, instructblip_embedded)"
        )
    tokenizer = load_tokenizer(folder)
    inputs = VllmInputs(
        tokenizer,
        embedded_image_processor(model.image_size),
        model.template,
        model.image_token_id,
        model.image_tokens,
        tokenizer if model.instruction_aware else None,
    )
    placed: Any = model.to(device)
    return LoadedVllm(name, placed.model, inputs)
