"""An alignment from its configuration (a file of conf/alignment)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attention_atlas.alignments.base import Alignment
from attention_atlas.alignments.scaled_dot import ScaledDot
from attention_atlas.errors import AtlasError, ConfigError, first_line


def build_alignment(
    config: Mapping[str, Any] | Alignment | None, dim: int, key_dim: int | None = None
) -> Alignment:
    """Build the alignment of `config` (a file of conf/alignment) for one attention module, with its own
    weights.

    None means the scaled dot product; an Alignment is returned unchanged. Raises ConfigError for an invalid
    configuration.
    """
    if isinstance(config, Alignment):
        return config
    if config is None:
        return ScaledDot(dim, key_dim)
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    arguments = {k: v for k, v in config.items() if k not in ("name", "title")}
    where = f"alignment: {config.get('name', config.get('_target_'))}"
    if "_target_" not in arguments:
        raise ConfigError(f"{where}: _target_ is missing; name the alignment's class")
    try:
        built = instantiate(arguments, dim=dim, key_dim=key_dim)
    except HydraException as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, AtlasError):
            raise cause from None
        raise ConfigError(f"{where}: {first_line(cause)}") from None
    if not isinstance(built, Alignment):
        raise ConfigError(f"{where}: _target_: {type(built).__name__} is not a subclass of Alignment")
    return built
