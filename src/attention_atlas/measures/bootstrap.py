"""Intervals and tests shared by all metrics. All resampling is over images, seeded, and vectorised.

Axes: B resamples, I images, C any number of cells (heads, conditions) given as trailing axes.

Every metric here is a ratio of two sums over images, value = sum_i num_i / sum_i den_i (a mean over phrases
is the sum of the phrases' values over their number). So a bootstrap needs only the two sums per image, and
resampling is one matrix product with the number of draws of each image.

A single image gives no estimate of the variance between images: all its resamples are equal. A value from
fewer than two images therefore has no interval and no p (NaN), instead of an interval of width 0.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError

RESAMPLES = 2000
LEAST_IMAGES = 2


@functools.lru_cache(maxsize=8)
def resampling_matrix(images: int, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """(B, I) counts: how often resample b drew each image, with replacement.

    Cached per (images, resamples, seed), so that all metrics over the same images use the same resamples and
    their differences are paired. Read-only. Raises AtlasError for 0 images.
    """
    if images < 1:
        raise AtlasError("bootstrap: no images to resample; the split is empty, choose another")
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(images, np.full(images, 1.0 / images), size=resamples).astype(np.float64)
    counts.flags.writeable = False
    return counts


def ratio(num_IC: np.ndarray, den_IC: np.ndarray) -> np.ndarray:
    """sum_i num / sum_i den per cell; NaN where the denominator is 0."""
    return _divide(num_IC.sum(axis=0), np.broadcast_to(den_IC, num_IC.shape).sum(axis=0))


def resampled_ratio(
    num_IC: np.ndarray, den_IC: np.ndarray, counts_BI: np.ndarray, least: int = LEAST_IMAGES
) -> np.ndarray:
    """(B, C...) ratios in each resample; NaN in cells with fewer than `least` contributing images."""
    cells = num_IC.shape[1:]
    images = len(num_IC)
    den_IC = np.broadcast_to(den_IC, num_IC.shape)
    num_BC = counts_BI @ num_IC.reshape(images, -1)
    den_BC = counts_BI @ den_IC.reshape(images, -1)
    value_BC = _divide(num_BC, den_BC)
    value_BC[:, contributing(den_IC).reshape(-1) < least] = np.nan
    return value_BC.reshape(len(counts_BI), *cells)


def contributing(den_IC: np.ndarray) -> np.ndarray:
    """(C...) number of images that contribute to each cell."""
    return np.count_nonzero(den_IC, axis=0)


def interval(values_BC: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval over the resamples (axis 0), ignoring NaN; NaN where all are NaN."""
    tail = 100 * (1 - level) / 2
    if not np.isnan(values_BC).any():
        low, high = np.percentile(values_BC, [tail, 100 - tail], axis=0)
        return low, high
    gone = np.isnan(values_BC).all(axis=0)
    filled = np.where(gone, 0.0, values_BC)
    low, high = np.nanpercentile(filled, [tail, 100 - tail], axis=0)
    return np.where(gone, np.nan, low), np.where(gone, np.nan, high)


def _divide(num: np.ndarray, den: np.ndarray) -> np.ndarray:
    out = np.full(np.broadcast_shapes(num.shape, den.shape), np.nan)
    np.divide(num, den, out=out, where=np.abs(den) > 0)
    return out


@dataclass(frozen=True)
class Difference:
    """Difference of two conditions over cells C: value, 95 % interval, two-sided p (NaN if undefined)."""

    value: np.ndarray
    ci_low: np.ndarray
    ci_high: np.ndarray
    p: np.ndarray


def paired_difference(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], counts_BI: np.ndarray
) -> Difference:
    """Paired bootstrap of ratio(first) - ratio(second), each a (num_IC, den_IC) over the same images.

    p: `two_sided`.
    """
    diff_BC = resampled_ratio(*first, counts_BI) - resampled_ratio(*second, counts_BI)
    low, high = interval(diff_BC)
    return Difference(ratio(*first) - ratio(*second), low, high, two_sided(diff_BC))


def two_sided(diff_BC: np.ndarray) -> np.ndarray:
    """p (C...) that a difference is 0, from its resamples: twice the smaller fraction on one side of 0, with
    one added to the counts (Davison and Hinkley 1997, section 4.2), so it is never 0. NaN without
    resamples."""
    size = (~np.isnan(diff_BC)).sum(axis=0) + 1
    below = ((diff_BC <= 0).sum(axis=0) + 1) / size
    above = ((diff_BC >= 0).sum(axis=0) + 1) / size
    return np.where(size > 1, np.minimum(1.0, 2 * np.minimum(below, above)), np.nan)


def paired_permutation(diff_IC: np.ndarray, permutations: int = 5000, seed: int = 0) -> np.ndarray:
    """Two-sided p (C...) that the mean paired difference over images is 0, by flipping signs at random.

    Under the null each image's difference is as likely to be negative; p = (1 + hits) / (1 + permutations).
    """
    diff_IC = np.asarray(diff_IC, dtype=np.float64)
    flat_IC = diff_IC.reshape(len(diff_IC), -1)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(permutations, len(flat_IC)))
    null = np.abs(signs @ flat_IC)
    seen = np.abs(flat_IC.sum(axis=0))
    return _p_value(null, seen).reshape(diff_IC.shape[1:])


def two_sample_permutation(
    first_NC: np.ndarray, second_MC: np.ndarray, permutations: int = 5000, seed: int = 0
) -> np.ndarray:
    """Two-sided p (C...) that two independent groups of images have the same mean, by shuffling the
    labels."""
    first_NC = np.asarray(first_NC, dtype=np.float64)
    both = np.concatenate([first_NC, second_MC]).reshape(len(first_NC) + len(second_MC), -1)
    n, m = len(first_NC), len(second_MC)
    if not n or not m:
        raise AtlasError("permutation test: a group is empty; give both groups at least one image")
    labels = np.concatenate([np.full(n, 1 / n), np.full(m, -1 / m)])
    shuffled = np.random.default_rng(seed).permuted(np.tile(labels, (permutations, 1)), axis=1)
    return _p_value(np.abs(shuffled @ both), np.abs(labels @ both)).reshape(first_NC.shape[1:])


def _p_value(null_BC: np.ndarray, seen_C: np.ndarray) -> np.ndarray:
    # A relative tolerance, so that arrangements equal to the observed one count as hits despite rounding.
    hits = (null_BC >= seen_C * (1 - 1e-12) - 1e-15).sum(axis=0)
    return (hits + 1) / (len(null_BC) + 1)


def holm(p: Any) -> np.ndarray:
    """Holm (1979) step-down adjusted p values, same shape; controls the family-wise error rate.

    NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    known = ~np.isnan(p)
    flat = p[known]
    order = np.argsort(flat, kind="stable")
    scaled = flat[order] * (len(flat) - np.arange(len(flat)))
    found = np.empty_like(flat)
    found[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    adjusted[known] = found
    return adjusted


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson r over the last axis; NaN where either side is constant."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    return _divide((x * y).sum(axis=-1), np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1)))


def pearson_p(r: float, n: int) -> float:
    """Two-sided p of r over n pairs (Student's t with n - 2 degrees of freedom); NaN below 3 pairs."""
    from scipy import stats

    if n < 3 or np.isnan(r):
        return float("nan")
    if abs(r) >= 1:
        return 0.0
    t = abs(r) * np.sqrt((n - 2) / (1 - r * r))
    return float(2 * stats.t.sf(t, n - 2))
