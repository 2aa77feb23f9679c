"""Rows of means over examples, with bootstrap intervals over images.

Axes: N examples, I images, B resamples, C columns, L layers, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.measures.bootstrap import (
    RESAMPLES,
    interval,
    ratio,
    resampled_ratio,
    resampling_matrix,
)
from attention_atlas.measures.metric import head_rows


@dataclass
class Sample:
    """Examples and their images: the image (0..I-1) of each example, and the resampling of images."""

    image_N: np.ndarray
    counts_BI: np.ndarray

    @classmethod
    def of(cls, image_ids: Sequence[str] | np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> Sample:
        names, image_N = np.unique(np.asarray(image_ids, dtype=str), return_inverse=True)
        return cls(image_N, resampling_matrix(len(names), resamples, seed))

    def sums(self, value_NC: np.ndarray, chosen_N: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Numerator and denominator (I,C...) of the mean over the chosen examples (None: all); NaN values are
        left out."""
        shape = (self.counts_BI.shape[1], *value_NC.shape[1:])
        num, den = np.zeros(shape), np.zeros(shape)
        there = ~np.isnan(value_NC)
        if chosen_N is not None:
            there &= chosen_N.reshape(-1, *[1] * (value_NC.ndim - 1))
        np.add.at(num, self.image_N, np.where(there, value_NC, 0.0))
        np.add.at(den, self.image_N, there.astype(float))
        return num, den


def mean_rows(
    sample: Sample,
    value_NC: np.ndarray,
    base: Mapping[str, Any],
    *,
    chosen_N: np.ndarray | None = None,
    chance_NC: np.ndarray | float | None = None,
    layers: Sequence[int] = (),
    spread: bool = False,
) -> list[dict[str, Any]]:
    """One row for each column of (N,C): the mean over the chosen examples (None: all); `n` counts them. NaN
    values are left out. layers: `layer` of each column (default -1). chance: per example, or one number.
    `spread` adds a row with statistic `sd`, the standard deviation over examples (n - 1)."""
    num, den = sample.sums(value_NC, chosen_N)
    value = ratio(num, den)
    low, high = interval(resampled_ratio(num, den, sample.counts_BI))
    count = den.sum(0)
    rows: list[dict[str, Any]] = []
    for c in range(value_NC.shape[1]):
        at = dict(base) | {"layer": int(layers[c]) if len(layers) else -1, "n": int(count[c])}
        row = at | {"value": float(value[c]), "ci_low": float(low[c]), "ci_high": float(high[c])}
        if isinstance(chance_NC, np.ndarray):
            row["chance"] = float(np.nanmean(chance_NC[:, c])) if count[c] else float("nan")
        elif chance_NC is not None:
            row["chance"] = float(chance_NC)
        rows.append(row)
        if spread:
            sd = float(np.nanstd(value_NC[:, c], ddof=1)) if count[c] > 1 else float("nan")
            rows.append(at | {"statistic": "sd", "value": sd})
    return rows


def head_mean_rows(
    sample: Sample, value_NLH: np.ndarray, chosen_N: np.ndarray, chance_N: np.ndarray, base: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows over all heads, by layer and by head; no rows if no example is chosen."""
    there = chosen_N & ~np.isnan(value_NLH[:, 0, 0])
    if not there.any():
        return []
    num, den = sample.sums(value_NLH, there)
    chance = float(np.mean(chance_N[there]))
    return head_rows(num, den, sample.counts_BI, chance, base | {"n": there.sum()})
