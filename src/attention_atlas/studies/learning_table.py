"""Validation results of all training runs of a study as a metric table."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job

KIND = "learning"


class LearningTable(MetricTable):
    """learning.csv: one row for each number of each validation, from the run folders below `folder`.

    `measure` is the name of the number in history.csv and `setting` the step: batches since the start of
    training.
    """

    name = "learning"

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        return learning_table(job.input(self.folder), cfg.study.name), {}


def learning_table(folder: Path, study: str) -> pd.DataFrame:
    """The rows of all run folders below `folder`."""
    from attention_atlas.measures.table import make_table

    rows = [row for path in sorted(folder.rglob("history.csv")) for row in learning_rows(path.parent)]
    if not rows:
        raise AtlasError(f"{folder}: holds no history.csv; run the training stages (dvc repro)")
    return make_table({"study": study, **row} for row in rows)


def learning_rows(run: Path) -> Iterator[dict[str, Any]]:
    """The rows of one run folder."""
    from attention_atlas.models.run_folder import read_config, read_history

    config = read_config(run)
    names = {
        "model": config["model"]["name"],
        "data": config["data"],
        "alignment": (config["model"].get("alignment") or {}).get("name", ""),
        "seed": str(config["seed"]),
        "kind": KIND,
    }
    for validation in read_history(run):
        step = f"{validation['step']:.0f}"
        for measure, value in validation.items():
            if measure not in ("step", "epoch"):
                yield {**names, "measure": measure, "setting": step, "value": value}
