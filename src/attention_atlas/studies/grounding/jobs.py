"""What `pipeline.metrics` runs for study 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.measures.metric import Metric
    from attention_atlas.workflow.stage import Stage


class Metrics:
    """metrics.csv and metrics.json: `measures` over the captured model, its parses and links."""

    def __init__(self, measures: Mapping[str, Metric]) -> None:
        self.measures = {str(name): measure for name, measure in measures.items()}

    def __call__(self, cfg: DictConfig, job: Stage) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.measures.analysed import read_study
        from attention_atlas.regions.features_file import FeaturesFile
        from attention_atlas.studies.grounding.run import headline, run_metrics

        with FeaturesFile(job.input(cfg.paths.features), check_values=False) as features:
            study = read_study(
                job.input(f"{cfg.paths.attention}/attention.h5"),
                job.input(cfg.paths.parses),
                job.input(cfg.paths.links),
                instantiate(cfg.data.reader),
                features,
                name=cfg.study.name,
                data=cfg.data.name,
                linker=cfg.linker.name,
                seed=cfg.seed,
            )
            results = cfg.paths.results
            table = run_metrics(
                self.measures,
                study,
                job.out(f"{results}/tables/metrics.csv"),
                job.out(f"{results}/metrics.json"),
            )
        return headline(table)
