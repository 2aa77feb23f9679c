"""OmegaConf resolvers that conf/ uses."""

from __future__ import annotations

import hashlib
import re
import shlex
from typing import Any

from omegaconf import OmegaConf

LONGEST = 150  # characters of a folder's name; most file systems allow 255 bytes


def _titles(group: Any) -> dict[str, str]:
    """`${titles:${alignments}}`: name -> title of each entry of a group, in its order."""
    return {str(name): str(entry["title"]) for name, entry in group.items()}


def _each(values: Any) -> str:
    """`${each:[a, b]}`: "a,b", the values of a Hydra multirun."""
    return ",".join(map(str, values))


def _folder_name(overrides: str) -> str:
    """`${folder_name:${hydra.job.override_dirname}}`: a name for the folder of a job. Overrides that are long
    or have characters that a name should not have are shortened, with a digest."""
    name = re.sub(r"[^\w=.,+-]", "_", overrides)
    if name == overrides and len(name) <= LONGEST:
        return name or "job"
    return f"{name[: LONGEST - 9]}-{hashlib.sha256(overrides.encode()).hexdigest()[:8]}"


def _quoted(text: str) -> str:
    """`${quoted:${oc.env:NAME}}`: one word of a shell."""
    return shlex.quote(str(text))


OmegaConf.register_new_resolver("each", _each, replace=True)
OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)
OmegaConf.register_new_resolver("quoted", _quoted, replace=True)
OmegaConf.register_new_resolver("titles", _titles, replace=True)
