"""Sweeps over models and alignments: skip jobs that make no sense or are already done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError
from attention_atlas.files import write_text

if TYPE_CHECKING:
    from omegaconf import DictConfig

DONE = "job.txt"


def uses_alignment(model: DictConfig) -> bool:
    """Whether conf/model/<name>.yaml takes the chosen alignment: `${alignment}`, `${oc.select:alignment}`."""
    from omegaconf import OmegaConf

    def mentions(value: Any) -> bool:
        if isinstance(value, dict):
            return any(mentions(v) for v in value.values())
        if isinstance(value, list):
            return any(mentions(v) for v in value)
        return isinstance(value, str) and bool(re.search(r"\$\{([\w.]+:)?\s*alignment\b", value))

    return mentions(OmegaConf.to_container(model, resolve=False))


def skip_reason(cfg: DictConfig) -> str:
    """Why a job over models and alignments makes no sense, or "". A model without an alignment function is
    trained with the study's reference only."""
    if cfg.get("alignment") is None:
        return ""
    name, chosen = cfg.model.name, cfg.alignment.name
    if "train" not in cfg or "data" not in cfg:
        return f"model {name}: not part of this study; conf/trained/alignment/ has no {name}.yaml"
    reference = cfg.study.get("reference")
    if uses_alignment(cfg.model) or reference in (None, chosen):
        return ""
    return f"model {name} with alignment {chosen}: it takes no alignment; trained once, with {reference}"


def skipped(cfg: DictConfig, in_sweep: bool) -> bool:
    """Whether to skip a job of a sweep that makes no sense; prints why. A single command trains the model it
    names; raises ConfigError if there is nothing to train it on."""
    why = skip_reason(cfg)
    if why and ("train" not in cfg or "data" not in cfg) and not in_sweep:
        raise ConfigError(f"{why}; choose another model, or give data= and train=")
    if why and in_sweep:
        print(f"skipped: {why}")
    return bool(why) and in_sweep


def is_done(out: Path, work: Path) -> bool:
    """Whether `out` was written by a job with the same configuration, code and inputs: `work` is the job's
    work folder, whose name is their digest. Prints a line if so."""
    mark = out / DONE
    done = mark.exists() and mark.read_text(encoding="utf-8") == work.name
    if done:
        print(f"skipped: {out}: already trained")
    return done


def mark_done(out: Path, work: Path) -> None:
    write_text(out / DONE, work.name)
