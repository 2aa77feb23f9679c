"""The schema of params.yaml. A name that is not declared here is reported as a typo."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from attention_atlas.errors import ConfigError, did_you_mean

PROFILES = ("mini", "mini-long", "smoke", "paper")
# The scripts of pipeline/, in data order.
SCRIPTS = (
    "world",
    "annotate",
    "features",
    "ocr",
    "train",
    "generate",
    "dump",
    "parse",
    "link",
    "metrics",
    "plot",
    "report",
)


@dataclass
class Limit:
    """Upper bounds of all sizes of a configuration (workflow/limit.py)."""

    steps: int
    examples: int
    batch: int
    width: int


@dataclass
class Params:
    """The parameters. effort: factor on the length of every training. device: of each script, and `default`;
    workers: processes, 0 = all cores."""

    profile: str
    studies: list[str]
    seed: int
    effort: float
    limit: Limit | None
    workers: int
    device: dict[str, str]


def check_params(params: Any, path: Path | str = "params.yaml") -> None:
    """Raise ConfigError for an unknown, missing or invalid parameter, or an unknown profile or script."""
    if not isinstance(params, dict):
        raise ConfigError(f"{path}: must consist of 'name: value' lines")
    known = [field.name for field in fields(Params)]
    for name in params:
        if name not in known:
            raise ConfigError(f"{path}: {name}: no such parameter{did_you_mean(str(name), known)}")
    for name in known:
        if name not in params:
            raise ConfigError(f"{path}: {name}: parameter is missing; put it back")
    check_values(params, f"{path}: ")
    for name, value, choices in (
        ("profile", params["profile"], PROFILES),
        *(("device", script, ("default", *SCRIPTS)) for script in params["device"]),
    ):
        if value not in choices:
            raise ConfigError(f"{path}: {name}: '{value}' is unknown{did_you_mean(str(value), choices)}")


def check_values(values: Mapping[str, Any], where: str = "") -> None:
    """Raise ConfigError for a parameter of another type or out of range. Other keys, and parameters that are
    not among `values`, are ignored. where: beginning of the message."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    given = {field.name: values[field.name] for field in fields(Params) if field.name in values}
    try:
        made: Any = OmegaConf.merge(OmegaConf.structured(Params), given)
        for name in given:
            OmegaConf.to_container(OmegaConf.create({name: made[name]}), throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"{where}{error.full_key}: {reason}; correct the value") from None
    for name, highest in (("seed", 2**32 - 1), ("workers", 2**31 - 1)):
        if name in given and not 0 <= made[name] <= highest:
            raise ConfigError(f"{where}{name}: {made[name]} is not within 0..{highest}; correct the value")


def is_shown(entry: Mapping[str, Any], profile: str) -> bool:
    """Whether a figure, table or text of conf/ belongs to a profile: `profiles` includes it, or is missing.
    mini-long shows the same as mini."""
    return profile.removesuffix("-long") in entry.get("profiles", [profile.removesuffix("-long")])


def read_params(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read and check params.yaml."""
    import yaml

    path = Path(path)
    if not path.exists():
        raise ConfigError(f"{path}: no such file; run from the repository root")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML ({str(error).splitlines()[0]}); correct the file") from None
    check_params(values, path)
    return values
