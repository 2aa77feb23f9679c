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
        from attention_atlas.measures.table import write_table

        table = self.table(cfg, job)
        write_table(job.out(f"{cfg.paths.tables}/{self.name}.csv"), table)
        rows = table.dropna(subset=["value"]).to_dict("records")
        return {f"{r['model']} {r['metric']} {r['condition']}".strip(): float(r["value"]) for r in rows}
