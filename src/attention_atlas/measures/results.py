"""Output of the metrics stage of every study: a metric table, metrics.json, and its numbers for MLflow.

metrics.json has {"about": {...}, "metrics": {model: {data: {name: value}}}}. `about` describes the
measured data for the report. `metrics` has the overall numbers: means over all layers, heads, seeds and
groups, without differences and statistics, which are in the table. A name is "<kind> <measure>", followed by
the other columns that identify the row: condition, alignment, input, setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.files import write_json
from attention_atlas.measures.table import measured, write_table

if TYPE_CHECKING:
    import pandas as pd

NAMES = ("condition", "alignment", "input", "setting")
SUMMARY = "metrics"  # the table that metrics.json summarises


def summarise(frame: pd.DataFrame, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The content of metrics.json, values with six significant digits."""
    overall = measured(frame, layer=-1, head=-1, **dict.fromkeys(NAMES)).dropna(subset=["value"])
    values: dict[str, dict[str, dict[str, float]]] = {}
    for row in overall.to_dict("records"):
        name = ", ".join([f"{row['kind']} {row['measure']}".strip(), *(row[n] for n in NAMES if row[n])])
        of_data = values.setdefault(row["model"], {}).setdefault(row["data"], {})
        of_data[name] = float(f"{row['value']:.6g}")
    return {"about": dict(about or {}), "metrics": values}


def write_results(
    out: Path, frame: pd.DataFrame, about: Mapping[str, Any] | None = None, name: str = SUMMARY
) -> dict[str, float]:
    """Write `out`/tables/<name>.csv, for the table `metrics` also `out`/metrics.json; return its numbers for
    MLflow as {"<model> <data> <name>": value}."""
    write_table(out / "tables" / f"{name}.csv", frame)
    summary = summarise(frame, about)
    if name == SUMMARY:
        write_json(out / "metrics.json", summary)
    return {
        " ".join(filter(None, (model, data, of))): value
        for model, of_model in summary["metrics"].items()
        for data, of_data in of_model.items()
        for of, value in of_data.items()
    }
