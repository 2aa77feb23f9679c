"""The contract between `pipeline.metrics` and a study: measure, and return a metric table."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Stage


class MetricTable(ABC):
    """What `pipeline.metrics` runs: results/<study>/tables/<name>.csv, and metrics.json for the table
    `metrics` (measures/results.py)."""

    name: str = "metrics"

    @abstractmethod
    def measure(self, cfg: DictConfig, job: Stage, out: Path) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        """The table, as measures.table.make_table makes it, and what metrics.json says about the data. Writes
        the other files of the study below `out`."""

    def __call__(self, cfg: DictConfig, job: Stage) -> dict[str, float]:
        from attention_atlas.measures.results import write_results

        out = job.out(cfg.paths.results)
        frame, about = self.measure(cfg, job, out)
        return write_results(out, frame, about, self.name)
