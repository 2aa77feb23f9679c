"""What `pipeline.metrics` runs for study 5."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.studies.vlm_phases.tables import PhasesStudy
    from attention_atlas.workflow.stage import Stage


class Metrics:
    """metrics.csv, shown.json and metrics.json from the dumps of all models and data sets."""

    def __init__(self, study: PhasesStudy) -> None:
        self.study = study

    def __call__(self, cfg: DictConfig, job: Stage) -> dict[str, Any]:
        from attention_atlas.studies.vlm_phases.tables import write_study

        study = cfg.study
        wanted = [(m, data) for data in [*study.data, *study.order] for m in study.models]
        folders = [job.input(f"{cfg.paths.attention}/{model}-{data}") for model, data in wanted]
        frame, shown = self.study(folders, study.name, cfg.seed)
        return write_study(frame, shown, job.out(cfg.paths.results))
