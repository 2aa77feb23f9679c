"""OmegaConf resolvers that conf/ uses."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf


def _titles(group: Any) -> dict[str, str]:
    """`${titles:${alignments}}`: name -> title of each entry of a group, in its order."""
    return {str(name): str(entry["title"]) for name, entry in group.items()}


def _each(values: Any) -> str:
    """`${each:[a, b]}`: "a,b", the values of a Hydra multirun."""
    return ",".join(map(str, values))


OmegaConf.register_new_resolver("each", _each, replace=True)
OmegaConf.register_new_resolver("titles", _titles, replace=True)
