"""OmegaConf resolvers that conf/ uses."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from attention_atlas.errors import ConfigError


def _per_profile(values: Any, *, _root_: Any) -> Any:
    """`${per_profile:{mini: 2000, smoke: 60, paper: null}}`: the value for the current profile."""
    profile = _root_.get("profile")
    if profile not in values:
        raise ConfigError(
            f"profile '{profile}' has no value in per_profile:{dict(values)}; add one in that file"
        )
    return values[profile]


def _titles(group: Any) -> dict[str, str]:
    """`${titles:${alignments}}`: name -> title of each entry of a group, in its order."""
    return {str(name): str(entry["title"]) for name, entry in group.items()}


def _each(values: Any) -> str:
    """`${each:[a, b]}`: "a,b", the values of a Hydra multirun."""
    return ",".join(map(str, values))


def register() -> None:
    OmegaConf.register_new_resolver("per_profile", _per_profile, replace=True)
    OmegaConf.register_new_resolver("each", _each, replace=True)
    OmegaConf.register_new_resolver("titles", _titles, replace=True)


register()
