"""Loading a model by its configuration: from the run folder of its training, or, if it is published, from the
weights that the configuration names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.models.run_folder import arguments_of, instantiated, load_run

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.workflow.stage import Job

Source = Path | Mapping[str, Any]


def source_of(cfg: DictConfig, job: Job, name: str = "") -> Source:
    """What `load_model` reads for the model `name` (default: `cfg.model`).

    A published model is `cfg.model` or one of `cfg.published`, with `run_folder: null`. Its `_target_` is a
    function that returns what `load_run` returns. Every other model has a run folder, which must exist.
    """
    from omegaconf import OmegaConf

    known = dict(cfg.get("published") or {})
    if "model" in cfg:
        known[cfg.model.name] = cfg.model
    model = known.get(name or cfg.model.name)
    if model is None or "run_folder" not in model:
        return job.input(f"{cfg.paths.models}/{name or cfg.model.name}")
    resolved: Any = OmegaConf.to_container(model, resolve=True)
    for key in ("weights", "words"):
        if Path(resolved.get(key, "")).suffix:  # a hub id is not a file
            job.input(resolved[key])
    return resolved


def load_model(source: Source, device: str = "cpu") -> Any:
    """(model in evaluation mode on `device`, Vocabulary, Subwords or None, configuration of the run).

    source: a run folder, or the configuration of a published model. Raises AtlasError for missing or broken
    files, or for weights that do not match the configuration.
    """
    if isinstance(source, Mapping):
        return instantiated(arguments_of(source), f"model: {source.get('name')}", device=device)
    return load_run(source, device)


def check_features(config: Mapping[str, Any], features: FeaturesFile) -> None:
    """Raise AtlasError if the regions have another dimension than those that the model was trained on."""
    needed = config.get("sizes", {}).get("feature_dim", features.dim)
    if needed != features.dim:
        raise AtlasError(
            f"features: the model needs {needed} numbers per region, {features.dim} are given; "
            "use the features that it was trained on"
        )
