"""What `pipeline.metrics` runs for study 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.measures.metric import Metric
    from attention_atlas.workflow.stage import Job


class Metrics(MetricTable):
    """metrics.csv, examples.json, heads.html and metrics.json: `measures` over every run, and comparisons."""

    def __init__(self, measures: Mapping[str, Metric]) -> None:
        self.measures = {str(name): measure for name, measure in measures.items()}

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate
        from omegaconf import OmegaConf

        from attention_atlas.regions.features_file import FeaturesFile
        from attention_atlas.studies.modality.run import run_modality

        study: Any = OmegaConf.to_container(cfg.study, resolve=True)
        with FeaturesFile(job.input(cfg.paths.features), check_values=False) as features:
            return run_modality(
                self.measures,
                study,
                job.input(cfg.paths.attention),
                job.input(cfg.paths.parses),
                instantiate(cfg.data.reader),
                features,
                out=out,
                data=cfg.data.name,
                seed=cfg.seed,
            )
