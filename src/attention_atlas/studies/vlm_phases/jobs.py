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
        from attention_atlas.measures.results import write_results
        from attention_atlas.studies.vlm_phases.tables import write_shown
        from attention_atlas.workflow.paths import attention_path, results_path

        study = cfg.study
        wanted = [(m, data) for data in [*study.data, *study.order] for m in study.models]
        folders = [job.input(f"{attention_path(cfg)}/{model}-{data}") for model, data in wanted]
        frame, shown = self.study(folders, study.name, cfg.seed)
        out = job.out(results_path(cfg))
        write_shown(shown, out / "tables" / "shown.json")
        return write_results(out, frame)
