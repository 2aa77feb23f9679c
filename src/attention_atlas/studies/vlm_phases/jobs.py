"""What `pipeline.metrics` runs for study 5."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import Measure, MetricTable, table_of

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.studies.vlm_phases.shown import Shown
    from attention_atlas.workflow.stage import Job


class Metrics(MetricTable):
    """metrics.csv, shown.json and metrics.json: `measures` over the dumps of all models and data sets."""

    def __init__(self, measures: Mapping[str, Measure], shown: Shown) -> None:
        self.measures = {str(name): measure for name, measure in measures.items()}
        self.shown = shown

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from attention_atlas.studies.vlm_phases.dump_file import opened

        study = cfg.study
        wanted = [(m, data) for data in [*study.data, *study.order] for m in study.models]
        if not wanted:
            raise AtlasError("vlm_phases: no dumps; name models and data in conf/study/vlm_phases.yaml")
        folders = [job.input(f"{cfg.paths.attention}/{model}-{data}") for model, data in wanted]
        frame = table_of(self.measures, opened(folders, cfg.seed), study=study.name)
        self.shown.write(opened(folders, cfg.seed), out / "tables" / "shown.json")
        return frame, {}
