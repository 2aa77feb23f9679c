"""The contract between `pipeline.metrics` and a study, and between a study and its measures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class Measure(Protocol):
    """An entry of `metrics.measures` in conf/metrics/<study>.yaml: a class with `rows(record)`, which yields
    dicts for measures.table.make_table. Its options are arguments of the constructor.

    What a record is depends on the study:

    - `grounding`, `modality`: measures.annotated.AnnotatedAttention, attention of one model over a corpus.
      Measures extend measures.metric.Metric, which reads the attention once for all of them: `measure` adds
      one example to sums, and `rows` also takes the kind of attention and the sums.
    - `vilt_layers`: studies.vilt_layers.record.Record: attention, answers and silenced heads of one model.
    - `vlm_phases`: studies.vlm_phases.dump_file.Dump: one model over one data set. There are several.

    There are no rows if the record lacks the measure's data, such as an analysis with 0 samples.
    """

    def rows(self, record: Any) -> Iterable[dict[str, Any]]: ...


def table_of(measures: Mapping[str, Measure], records: Iterable[Any], **names: str) -> pd.DataFrame:
    """The metric table of every measure of every record, in this order. names: columns of rows that lack
    them."""
    from attention_atlas.measures.table import make_table

    return make_table(
        names | row for record in records for measure in measures.values() for row in measure.rows(record)
    )


class MetricTable(ABC):
    """What `pipeline.metrics` runs: results/<study>/tables/<name>.csv, and metrics.json for the table
    `metrics` (measures/results.py)."""

    name: str = "metrics"

    @abstractmethod
    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, Mapping[str, Any]]:
        """The table, made by measures.table.make_table, and the description of the data for metrics.json.
        Writes the other files of the study below `out`."""

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from attention_atlas.measures.results import write_results

        out = job.out(cfg.paths.results)
        frame, about = self.measure(cfg, job, out)
        return write_results(out, frame, about, self.name)
