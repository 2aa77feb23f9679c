"""A table of scores that several models or methods get; not measured on attention."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Stage


class ScoreTable(ABC):
    """What `pipeline.metrics` runs for such a table: results/<study>/tables/<name>.csv."""

    name: str

    @abstractmethod
    def table(self, cfg: DictConfig, job: Stage) -> pd.DataFrame:
        """The rows, as measures.table.make_table makes them."""

    def __call__(self, cfg: DictConfig, job: Stage) -> dict[str, float]:
        from attention_atlas.measures.results import write_results
        from attention_atlas.workflow.paths import results_path

        return write_results(job.out(results_path(cfg)), self.table(cfg, job), name=self.name)
