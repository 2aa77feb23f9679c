"""The title of a stage's run in MLflow, and the columns by which the UI can sort runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.workflow.sweeps import uses_alignment
from attention_atlas.workflow.tracking_runs import JOB

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Groups of conf/ that tell two runs of a stage apart, and what comes before each in the title.
GROUPS = {"model": "", "data": "on ", "alignment": ", ", "linker": ", ", "metrics": "", "figure": ""}


def described(
    name: str, cfg: DictConfig, choices: Mapping[str, Any], sweep_dir: Path | None
) -> tuple[str, dict[str, Any], dict[str, str]]:
    """(title, key parameters, tags): e.g. "train MAC on tabletop_questions, dot, seed 0", its choices by
    group of conf/, and the tags `stage`, `study` and, for a job of a sweep, its folder."""
    keys = {group: str(choices[group]) for group in GROUPS if choices.get(group)}
    model = cfg.get("model")
    if model is None or not uses_alignment(model):
        keys.pop("alignment", None)  # in the configuration of the script, but not used
    title = name
    for group, choice in keys.items():
        before, shown = GROUPS[group], choice
        if group == "model" and model is not None:
            shown = str(model.get("title") or choice)
        title += f"{before}{shown}" if before.startswith(",") else f" {before}{shown}"
    if name in ("train", "world"):
        title += f", seed {cfg.seed}"
    tags = {"stage": name}
    if choices.get("study"):
        tags["study"] = str(choices["study"])
    if sweep_dir is not None:
        tags[JOB] = os.path.relpath(sweep_dir)
    study = tags.get("study", "data")
    if set(keys) in ({"metrics"}, {"figure"}) and study not in keys.values():
        title = f"{title} of {study}"
    return title, {**keys, "stage": name}, tags
