"""Table 2 of "Attention as Grounding": how well each linking method finds the region of a phrase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class LinkerTable(MetricTable):
    """mAP@K and accuracy of each of `linkers` (the configs of conf/linker/) against gold.

    `gold`: your own CSV file (docs/linking.md), or null for the annotation of a rendered world.
    """

    def __init__(self, linkers: Mapping[str, Any], gold: str | None = None, name: str = "linkers") -> None:
        if not linkers:
            raise AtlasError("linkers: none given; name at least one in the defaults list")
        self.name, self.linkers, self.gold = name, dict(linkers), gold

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from hydra.utils import instantiate

        from attention_atlas.language.parse import read_parses
        from attention_atlas.linking.evaluate import evaluate
        from attention_atlas.linking.gold_file import read_gold_csv
        from attention_atlas.measures.table import make_table
        from attention_atlas.regions.features_file import FeaturesFile

        corpus = instantiate(cfg.data.reader)
        parses = read_parses(job.input(cfg.paths.parses))
        gold = read_gold_csv(job.input(self.gold)) if self.gold else None
        rows = []
        with FeaturesFile(job.input(cfg.paths.features)) as features:
            for config in self.linkers.values():
                linker = instantiate(config, device=job.device)
                scores = evaluate(parses, corpus, features, linker, gold)
                base = {"study": cfg.study.name, "model": linker.name, "data": corpus.name}
                rows += [{**base, "kind": "link", **row} for row in scores.rows(seed=int(cfg.seed))]
        return make_table(rows), {}
