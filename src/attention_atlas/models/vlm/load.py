"""Loading a vision LLM from its run folder: trained here, or a checkpoint named in the folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.loaded import LoadedVlm


def load_vlm(folder: str | Path, device: str = "cpu") -> LoadedVlm:
    """Raises AtlasError for a folder without a vision LLM, a broken file, or an unsupported model."""
    from attention_atlas.models.run_folder import load_run
    from attention_atlas.models.vlm.hub import HubVlm, load_hub
    from attention_atlas.models.vlm.images import mini_image_processor
    from attention_atlas.models.vlm.inputs import VlmInputs
    from attention_atlas.models.vlm.instructblip import InstructBlip
    from attention_atlas.models.vlm.llava import Llava
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.models.vlm.tokenizer import load_tokenizer

    folder = Path(folder)
    model: Any
    model, _, config = load_run(folder)
    name = config["model"].get("name", folder.name)
    if isinstance(model, HubVlm):
        return load_hub(name, model.pretrained, model.template, model.precision, model.device_map, device)
    if not isinstance(model, Llava | InstructBlip):
        raise AtlasError(
            f"{folder / 'config.yaml'}: model: {type(model).__name__} is not a vision LLM; "
            "use one that was tuned (llava_mini, instructblip_mini)"
        )
    tokenizer = load_tokenizer(folder)
    inputs = VlmInputs(
        tokenizer,
        mini_image_processor(model.image_size),
        model.template,
        model.image_token_id,
        model.image_tokens,
        tokenizer if model.instruction_aware else None,
    )
    placed: Any = model.to(device)
    return LoadedVlm(name, placed.model, inputs)
