"""Paths of all artefacts: the outputs that dvc.yaml declares."""

from __future__ import annotations

from typing import Any


def features_path(cfg: Any) -> str:
    """Regions of the picture set of `cfg.data`; text layers over one picture set share them."""
    return f"data/features/{cfg.data.get('images') or cfg.data.name}.h5"


def language_path(cfg: Any) -> str:
    return f"data/language/{cfg.data.name}.jsonl"


def links_path(cfg: Any, linker: str) -> str:
    return f"data/links/{cfg.data.name}/{linker}.jsonl"


def model_path(cfg: Any, model: str) -> str:
    return f"data/models/{cfg.study.name}/{model}"


def generated_path(cfg: Any, model: str) -> str:
    return f"data/generated/{cfg.study.name}/{model}.jsonl"


def attention_path(cfg: Any) -> str:
    """Folder of attention.h5 and statistics.h5."""
    return f"data/attention/{cfg.study.name}"


def results_path(cfg: Any) -> str:
    return f"results/{cfg.study.name}"
