"""The schema of params.yaml. A name that is not declared here is reported as a typo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attention_atlas.errors import ConfigError, did_you_mean

PROFILES = ("mini", "smoke", "paper")
STAGES = (
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

# Sections that may be null.
OPTIONAL = ("limit",)
# The type of each parameter; a nested dict is a section.
PARAMS: dict[str, Any] = {
    "profile": str,
    "seed": int,
    "limit": {"steps": int, "examples": int, "batch": int, "width": int},
    "workers": int,
    "device": {stage: str for stage in STAGES},
    "worlds": list,
    "annotations": {"*": str},
    # Data sets by name; each has these two keys.
    "image_sets": {"*": {"root": str, "features": str}},
    # Pictures for OCR.
    "scene_text": {"*": {"root": str, "ocr": str}},
    "grounding": {
        "data": str,
        "root": str,
        # What each is trained on.
        "captioners": {"*": {"data": str, "root": str}},
        "gold": {"*": str},
        "captured": str,
        "linker": str,
    },
    "modality": {
        "data": str,
        "texts": str,
        "generated": str,
        "images": str,
        "root": str,
        "trained": list,
        "captioner": str,
        "finish": str,
        "initial": str,
        "text_only": {"*": {"data": str, "layer": str}},
    },
    # Not `alignment`: that name is taken by the alignment function of conf/alignment.
    "alignment_study": {
        "figure": str,
        "encoders": {"*": {"model": str, "data": str, "root": str, "layer": str}},
        "cells": {
            "*": {
                "model": str,
                "data": str,
                "train": str,
                "root": str,
                "layer": str,
                "input": str,
                "also": str,
            }
        },
    },
    "vilt_layers": {"data": str, "texts": str, "root": str, "model": str, "blind": str},
    "vlm_phases": {
        "models": list,
        "data": list,
        "order": list,
        "bases": {"*": str},
        "tuned": list,
        "blind": str,
        "train": str,
        "tower": str,
        "text": str,
        "trained_on": str,
        "pictures": str,
        "captions": str,
        "questions": str,
        "more_pictures": str,
        "more_captions": str,
    },
}


def check_params(params: Any, path: Path | str = "params.yaml") -> None:
    """Raise ConfigError for an unknown parameter, a wrong type, a missing parameter or an unknown profile."""
    _check(params, PARAMS, "", str(path))
    if params["profile"] not in PROFILES:
        raise ConfigError(
            f"{path}: profile: '{params['profile']}' is unknown{did_you_mean(params['profile'], PROFILES)}"
        )


def _check(values: Any, schema: dict[str, Any], prefix: str, path: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: {prefix.rstrip('.') or 'file'}: must be a section of 'name: value' lines")
    for name, value in values.items():
        if name not in schema and "*" not in schema:
            raise ConfigError(f"{path}: {prefix}{name}: no such parameter{did_you_mean(str(name), schema)}")
        wanted: Any = schema.get(name, schema.get("*"))
        if isinstance(wanted, dict):
            if value is None and f"{prefix}{name}" in OPTIONAL:
                continue
            _check(value, wanted, f"{prefix}{name}.", path)
        elif type(value) is not wanted:
            raise ConfigError(
                f"{path}: {prefix}{name}: must be of type {wanted.__name__}, not {value!r}; correct the value"
            )
    for name in schema:
        if name not in values and name != "*":
            raise ConfigError(f"{path}: {prefix}{name}: parameter is missing; put it back")


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
