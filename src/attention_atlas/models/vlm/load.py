"""Loading a vision LLM: trained here, from its run folder, or published, by its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.load import Source
    from attention_atlas.models.vlm.loaded import LoadedVlm


def load_vlm(source: Source | str, device: str = "cpu") -> LoadedVlm:
    """source: a run folder, or the configuration of a published model. Raises AtlasError for a folder without
    a vision LLM, a broken file, or an unsupported model."""
    from pathlib import Path

    from attention_atlas.models.load import load_model
    from attention_atlas.models.vlm.inputs import SampleInputs, mini_inputs
    from attention_atlas.models.vlm.instructblip import InstructBlip
    from attention_atlas.models.vlm.llava import Llava
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.models.vlm.tokenizer import load_tokenizer

    if isinstance(source, Mapping):
        model, inputs, _ = load_model(source, device)
        if not isinstance(inputs, SampleInputs):
            raise AtlasError(f"model={source['name']}: is not a vision LLM; choose one (hub, llava_7b, ...)")
        return LoadedVlm(str(source["name"]), model, inputs)
    folder = Path(source)
    model, _, config = load_model(folder)
    if not isinstance(model, Llava | InstructBlip):
        raise AtlasError(
            f"{folder / 'config.yaml'}: model: {type(model).__name__} is not a vision LLM; "
            "use one that was tuned (llava_mini, instructblip_mini)"
        )
    inputs = mini_inputs(model, load_tokenizer(folder))
    return LoadedVlm(config["model"].get("name", folder.name), model.to(device).model, inputs)
