"""What `pipeline.metrics` runs for study 1."""

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
    """metrics.csv and metrics.json: `measures` over the captured model, its parses and links.

    `gold`: a file of links that are known to be right (written with linker=gold), or null."""

    def __init__(self, measures: Mapping[str, Metric], gold: str | None = None) -> None:
        self.gold = gold
        self.measures = {str(name): measure for name, measure in measures.items()}

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate

        from attention_atlas.measures.annotated import read_annotated
        from attention_atlas.measures.metric import measure_all
        from attention_atlas.regions.features_file import FeaturesFile
        from attention_atlas.studies.grounding.run import about

        with FeaturesFile(job.input(cfg.paths.features), check_values=False) as features:
            attention = read_annotated(
                job.input(f"{cfg.paths.attention}/attention.h5"),
                job.input(cfg.paths.parses),
                job.input(cfg.paths.links),
                instantiate(cfg.data.reader),
                features,
                gold=job.input(self.gold) if self.gold else None,
                name=cfg.study.name,
                data=cfg.data.name,
                linker=cfg.linker.name,
                seed=cfg.seed,
            )
            return measure_all(self.measures, attention), about(attention)
