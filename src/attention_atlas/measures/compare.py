"""Several models on the same captions: one table, and the difference of each pair with a paired bootstrap.

Captions are resampled for both models at once, so the variation between captions cancels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, two_sided
from attention_atlas.measures.metric import Metric, Sums, Tally
from attention_atlas.measures.table import make_table

if TYPE_CHECKING:
    import pandas as pd


def compare(
    metrics: Mapping[str, Metric],
    runs: Mapping[str, AnnotatedAttention],
    pairs: Sequence[tuple[str, str]] = (),
) -> pd.DataFrame:
    """Rows of every metric for every run (column model), then for each pair (a, b) the difference a − b
    (columns model, against) with its interval, and its p.

    Differences are between means over heads: overall, per layer if both have the same number of layers, and
    per head if both have the same heads. Raises AtlasError if two runs have different captions.
    """
    first = next(iter(runs.values()))
    for name, attention in runs.items():
        if attention.ids != first.ids:
            raise AtlasError(
                f"attention of '{name}': {len(attention.ids)} captions, others have {len(first.ids)}; "
                "dump the same captions"
            )
    tallies = {name: _tally(metrics, attention) for name, attention in runs.items()}
    rows: list[dict[str, Any]] = []
    for name, attention in runs.items():
        names = {"study": attention.name, "model": name, "data": attention.data}
        for (metric, kind), tally in tallies[name].items():
            found = metrics[metric].rows(attention, kind, tally)
            if not found:
                raise AtlasError(
                    f"metric '{metric}': {name}: nothing to measure in {len(attention.ids)} captions"
                )
            rows += [names | row for row in found]
    for a, b in pairs:
        for wanted in (a, b):
            if wanted not in runs:
                raise AtlasError(f"conf/study: compare: no run '{wanted}'; known: {', '.join(runs)}")
        names = {"study": first.name, "model": a, "against": b, "data": first.data}
        for (metric, kind), tally in tallies[a].items():
            other = tallies[b].get((metric, kind))
            for key, sums in tally.sums.items():
                if other is not None and key in other.sums and key in metrics[metric].keys(tally):
                    base = names | metrics[metric].base(kind, key) | {"n": sums.n}
                    rows += differences(sums, other.sums[key], first.counts_BI, base)
    return make_table(rows)


def _tally(metrics: Mapping[str, Metric], attention: AnnotatedAttention) -> dict[tuple[str, str], Tally]:
    """All metrics of one run, in one pass. Kinds that it lacks are left out."""
    wanted = [
        (name, kind) for name, m in metrics.items() for kind in m.kinds if kind in attention.store.kinds
    ]
    tallies = {key: Tally(attention.images) for key in wanted}
    for item, kind in attention.stream(sorted({kind for _, kind in wanted})):
        for name, metric in metrics.items():
            if (name, kind) in tallies:
                metric.measure(item, kind, tallies[name, kind])
    return tallies


def differences(
    first: Sums, second: Sums, counts_BI: np.ndarray, base: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Rows of first − second; p is twice the smaller share of resamples on one side of 0, with one added to
    the count."""
    value_a, value_b = (ratio(s.num_ILH, s.den_ILH) for s in (first, second))
    drawn_a, drawn_b = (resampled_ratio(s.num_ILH, s.den_ILH, counts_BI) for s in (first, second))
    found = [(-1, -1, value_a.mean() - value_b.mean(), drawn_a.mean((1, 2)) - drawn_b.mean((1, 2)))]
    if len(value_a) == len(value_b) and len(value_a) > 1:
        for layer in range(len(value_a)):
            drawn_B = drawn_a[:, layer].mean(1) - drawn_b[:, layer].mean(1)
            found.append((layer, -1, value_a[layer].mean() - value_b[layer].mean(), drawn_B))
    rows: list[dict[str, Any]] = []
    for layer, head, value, drawn_B in found:
        if not np.isfinite(value):
            continue
        low, high = interval(drawn_B)
        at = dict(base) | {"layer": layer, "head": head}
        limits = {"ci_low": float(low), "ci_high": float(high)}
        rows.append(at | limits | {"value": float(value), "chance": 0.0})
        rows.append(at | {"statistic": "p", "value": float(two_sided(drawn_B))})
    return rows
