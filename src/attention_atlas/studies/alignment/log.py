"""Log each run of the study as a separate MLflow run, nested under the run of its stage."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.studies.alignment.run import TrainingRun
from attention_atlas.workflow.tracking import PARENT_VARIABLE, Run, stage_run


def log_run(
    root: Path,
    parent: Run,
    cfg: Any,
    run: TrainingRun,
    seconds: float,
    scores: Mapping[str, float],
    history: list[dict[str, float]],
) -> None:
    """One child run: the chosen settings, the scores, the validation results by step."""
    chosen = {
        "model": cfg.model.name,
        "data": cfg.data.name,
        "alignment": run.alignment,
        "seed": run.seed,
    }
    before = os.environ.get(PARENT_VARIABLE)
    os.environ[PARENT_VARIABLE] = parent.key
    try:
        title = cfg.model.get("title") or chosen["model"]
        name = f"train {title} on {chosen['data']}, {run.alignment}, seed {run.seed}"
        tags = {"stage": "run", "study": "alignment"}
        with stage_run(root, name, chosen, tags, seconds=seconds) as logged:
            for row in history:
                step = int(row["step"])
                logged.metrics({k: v for k, v in row.items() if k not in ("step", "epoch")}, step)
            logged.metrics({**scores, "seconds": seconds})
            logged.model(f"{chosen['model']} {run.alignment}", chosen, f"{cfg.outputs.runs}/{run.folder}")
    finally:
        if before is None:
            del os.environ[PARENT_VARIABLE]
        else:
            os.environ[PARENT_VARIABLE] = before
