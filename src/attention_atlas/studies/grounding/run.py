"""The metrics stage: turns a study and its metrics into one table and a short summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from attention_atlas.files import write_json
from attention_atlas.measures.analysed import Study
from attention_atlas.measures.metric import Metric, measure_all
from attention_atlas.measures.table import write_table


def run_metrics(
    metrics: Mapping[str, Metric], study: Study, table: str | Path, summary: str | Path
) -> pd.DataFrame:
    """Measure, write the table (CSV) and the summary (JSON), and return the table."""
    frame = measure_all(metrics, study)
    write_table(table, frame)
    write_json(summary, summarise(frame, study))
    return frame


def summarise(frame: pd.DataFrame, study: Study) -> dict[str, Any]:
    """What was measured, and for each metric the mean over heads and the best head, rounded to 6 digits."""
    values: dict[str, Any] = {}
    for key, rows in frame.groupby(["kind", "metric", "condition"], sort=True):
        kind, metric, condition = (str(part) for part in key)  # type: ignore[union-attr]
        overall = rows[(rows["layer"] == -1) & (rows["head"] == -1)]
        numbers = {name: _short(overall[name].iloc[0]) for name in ("value", "ci_low", "ci_high", "chance")}
        entry: dict[str, Any] = {name: value for name, value in numbers.items() if value is not None}
        entry["n"] = int(overall["n"].iloc[0])
        heads = rows[rows["head"] >= 0]
        if len(heads) and heads["value"].notna().any():
            best = heads.sort_values("value", ascending=False, kind="stable").iloc[0]
            entry["best_head"] = {
                "layer": int(best["layer"]),
                "head": int(best["head"]),
                "value": _short(best["value"]),
            }
        values.setdefault(metric, {}).setdefault(kind, {})[condition] = entry
    about = {
        "examples": len(study.ids),
        "images": study.images,
        "capture": str(study.store.attrs.get("convention", "")),
        "linker": study.linker,
        "model": study.model,
        "regions": study.regions,
        "resamples": study.resamples,
    } | _language(study)
    return {"about": about, "metrics": values}


def _language(study: Study) -> dict[str, Any]:
    """Means per text of words, noun phrases (all nesting levels), linked phrases and relations, by type."""
    n = len(study.ids)
    parses = [study.parses[id_] for id_ in study.ids]
    types = Counter(relation.type for parse in parses for relation in parse.relations)
    return {
        "words_per_text": _short(sum(len(p.tokens) for p in parses) / n),
        "phrases_per_text": _short(sum(len(p.phrases) for p in parses) / n),
        "linked_phrases_per_text": _short(sum(len(study.links.get(id_, ())) for id_ in study.ids) / n),
        "relations": dict(sorted(types.items())),
        "relations_per_text": _short(sum(types.values()) / n),
    }


def headline(frame: pd.DataFrame) -> dict[str, float]:
    """For MLflow: each metric over all heads, and its highest head; names with allowed characters only."""
    values = {}
    for key, rows in frame.groupby(["kind", "metric", "condition"], sort=True):
        name = re.sub(r"[^A-Za-z0-9_./ -]+", "_", " ".join(str(part) for part in key))  # type: ignore[union-attr]
        values[name] = float(rows.loc[(rows["layer"] == -1) & (rows["head"] == -1), "value"].iloc[0])
        heads = rows.loc[rows["head"] >= 0, "value"]
        if heads.notna().any():
            values[f"{name} highest head"] = float(heads.max())
    return values


def _short(value: Any) -> float | None:
    return None if pd.isna(value) else float(f"{value:.6g}")
