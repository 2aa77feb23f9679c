"""Table rows from values per question: differences between groups of questions with a permutation test
corrected for the number of heads, rank correlations over heads.

Axes: N questions, I images, L layers, H heads.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import holm, paired_difference, two_sample_permutation
from attention_atlas.measures.means import Sample


def difference_rows(
    sample: Sample,
    value_NLH: np.ndarray,
    first_N: np.ndarray,
    second_N: np.ndarray,
    base: dict[str, Any],
    permutations: int,
    seed: int,
) -> list[dict[str, Any]]:
    """Mean over the first questions minus mean over the second, per head and over all heads: value with a
    bootstrap interval over images, statistic `p` by permuting the labels of questions, `p Holm` corrected
    over the L · H heads."""
    there = ~np.isnan(value_NLH[:, 0, 0])
    first_N, second_N = first_N & there, second_N & there
    if not first_N.any() or not second_N.any():
        return []
    rows: list[dict[str, Any]] = []
    cells = np.concatenate([value_NLH.reshape(len(value_NLH), -1), value_NLH.mean((1, 2))[:, None]], 1)
    seen = paired_difference(sample.sums(cells, first_N), sample.sums(cells, second_N), sample.counts_BI)
    p_C = two_sample_permutation(cells[first_N], cells[second_N], permutations, seed)
    corrected = np.append(holm(p_C[:-1]), p_C[-1])
    _, layers, heads = value_NLH.shape
    n = int(first_N.sum() + second_N.sum())
    for cell in range(layers * heads + 1):
        whole = cell == layers * heads
        at = base | {"n": n, "layer": -1 if whole else cell // heads, "head": -1 if whole else cell % heads}
        limits = {"ci_low": float(seen.ci_low[cell]), "ci_high": float(seen.ci_high[cell])}
        rows.append(at | limits | {"value": float(seen.value[cell]), "chance": 0.0})
        rows.append(at | {"statistic": "p", "value": float(p_C[cell])})
        if not whole:
            rows.append(at | {"statistic": "p Holm", "value": float(corrected[cell])})
    return rows


def rank_correlation_rows(
    x: dict[tuple[str, str], np.ndarray], y_LH: np.ndarray, base: dict[str, Any]
) -> list[dict[str, Any]]:
    """Spearman's rank correlation over heads of each [measure, condition] with `y`, its p, and Holm's over
    all of them."""
    from scipy import stats

    rows: list[dict[str, Any]] = []
    p_values = []
    for (measure, condition), value_LH in x.items():
        if value_LH.shape != y_LH.shape:
            raise AtlasError(
                f"rank correlation: {measure}: {value_LH.shape} heads, importance has {y_LH.shape}"
            )
        found = stats.spearmanr(value_LH.ravel(), y_LH.ravel())
        if not np.isfinite(found.statistic):
            continue
        at = base | {"measure": measure, "condition": condition, "n": y_LH.size}
        rows.append(at | {"value": float(found.statistic), "chance": 0.0})
        p_values.append((at, float(found.pvalue)))
    corrected = holm(np.array([p for _, p in p_values]))
    for (at, p), adjusted in zip(p_values, corrected):
        rows.append(at | {"statistic": "p", "value": p})
        rows.append(at | {"statistic": "p Holm", "value": float(adjusted)})
    return rows
