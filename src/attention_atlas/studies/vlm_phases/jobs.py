"""What `pipeline.metrics` runs for study 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.studies.vlm_phases.tables import PhasesStudy
    from attention_atlas.workflow.stage import Stage


class Metrics(MetricTable):
    """metrics.csv, shown.json and metrics.json from the dumps of all models and data sets."""

    def __init__(self, study: PhasesStudy) -> None:
        self.study = study

    def measure(self, cfg: DictConfig, job: Stage, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from attention_atlas.studies.vlm_phases.tables import write_shown

        study = cfg.study
        wanted = [(m, data) for data in [*study.data, *study.order] for m in study.models]
        folders = [job.input(f"{cfg.paths.attention}/{model}-{data}") for model, data in wanted]
        frame, shown = self.study(folders, study.name, cfg.seed)
        write_shown(shown, out / "tables" / "shown.json")
        return frame, {}
