"""Which differences between alignments exceed the noise of seeds and of test images.

The variance over seeds is pooled over the alignments of a model and data set; the variance over images comes
from a paired bootstrap. One t test uses both (Clark 1973), with Holm's correction (1979) over all pairs.
Pairs that are mathematically the same function are the negative control: see `control`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from attention_atlas.measures.bootstrap import (
    holm,
    interval,
    paired_difference,
    ratio,
    resampled_ratio,
    resampling_matrix,
)
from attention_atlas.studies.alignment.panel import Panel, Sums

LEVEL = 0.05
FLAT = 1e-9  # a spread below this is rounding


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and examples, 95 % interval (NaN if there is none), standard deviation over seeds (NaN
    for one seed), number of examples (0: a score of the whole set)."""

    value: float
    ci_low: float
    ci_high: float
    seed_sd: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """A difference between two alignments with its 95 % interval, which includes both kinds of noise.

    p_examples, p_seeds: from one kind of noise alone, for information. p_both: from both. p: p_both with
    Holm's correction over all pairs. With one seed all but p_examples are NaN.
    """

    value: float
    ci_low: float
    ci_high: float
    p_examples: float
    p_seeds: float
    p_both: float
    p: float

    @property
    def real(self) -> bool:
        """Whether the difference is marked. Never with one seed."""
        return bool(self.p < LEVEL)


@dataclass(frozen=True)
class Control:
    """The negative control: `marked` of `pairs` tested differences between equal functions are marked."""

    marked: int
    pairs: int

    @property
    def passed(self) -> bool:
        """Whether equal functions are marked at most as often as the level allows."""
        return self.marked <= LEVEL * self.pairs


def control(marks: Iterable[float]) -> Control:
    """From the marks (0 or 1, NaN without a test) of all pairs of alignments that are the same function."""
    known = [mark for mark in marks if not np.isnan(mark)]
    return Control(int(sum(known)), len(known))


def consistent(panel: Panel, name: str) -> tuple[Sums, float] | None:
    """(values of the examples, factor) when the score is their mean times 1 or 100, else None."""
    found = panel.values(name)
    if found is None:
        return None
    score_AS, mean_AS = panel.scores(name), found.value_ASE.mean(2)
    for factor in (1.0, 100.0):
        if np.allclose(score_AS, factor * mean_AS, rtol=1e-3, atol=1e-3 * factor):
            return found, factor
    return None


def estimates(panel: Panel, name: str, seed: int = 0) -> list[Estimate]:
    """One per alignment. The interval resamples images if the score is a mean over examples; otherwise it
    is Student's t interval over the seeds, and NaN for one seed."""
    score_AS = panel.scores(name)
    sd_A = score_AS.std(1, ddof=1) if panel.seeds > 1 else np.full(len(score_AS), np.nan)
    found = consistent(panel, name)
    n = 0
    if found is not None:
        sums, factor = found
        counts_BI = resampling_matrix(sums.images, seed=seed)
        low_A, high_A = (factor * x for x in interval(resampled_ratio(*sums.num_den(), counts_BI)))
        n = sums.examples
    else:
        low_A, high_A = _student(score_AS)
    rows = zip(score_AS.mean(1), low_A, high_A, sd_A, strict=True)
    return [Estimate(float(v), float(a), float(b), float(s), n) for v, a, b, s in rows]


def _student(score_AS: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    seeds, noise = score_AS.shape[1], pooled(score_AS)
    if seeds < 2:
        return np.full(len(score_AS), np.nan), np.full(len(score_AS), np.nan)
    half = _quantile(np.array(noise.freedom)) * noise.sd / np.sqrt(seeds)
    return score_AS.mean(1) - half, score_AS.mean(1) + half


@dataclass(frozen=True)
class SeedNoise:
    """Standard deviation over seeds, pooled over alignments, and its degrees of freedom (0: one seed)."""

    sd: float
    freedom: int


def pooled(score_AS: np.ndarray) -> SeedNoise:
    """The spread of seeds around their alignment's mean, pooled over all alignments of a model and data set:
    the few seeds of one alignment are too few to estimate it."""
    freedom = len(score_AS) * (score_AS.shape[1] - 1)
    if freedom < 1:
        return SeedNoise(float("nan"), 0)
    squares = ((score_AS - score_AS.mean(1, keepdims=True)) ** 2).sum()
    return SeedNoise(float(np.sqrt(squares / freedom)), freedom)


def verdicts(panel: Panel, name: str, seed: int = 0) -> dict[tuple[str, str], Verdict]:
    """Every ordered pair (a, b) of alignments: a minus b.

    The test treats both seeds and test images as random (Clark 1973, min F′): their squared standard errors
    add up. That is conservative, because both contain the noise of one seed on one image. Holm's correction
    is over all pairs, so it still holds when one of the two is chosen as the best row of the same table. With
    one seed there is no p value. A score of the whole set has no error over images.
    """
    score_AS = panel.scores(name)
    places = list(combinations(range(len(score_AS)), 2))
    if not places:
        return {}
    first, second = (list(side) for side in zip(*places, strict=True))
    gap_P = score_AS[first].mean(1) - score_AS[second].mean(1)
    noise = pooled(score_AS)
    seeds_P = np.full(len(places), noise.sd * np.sqrt(2 / panel.seeds))
    found = consistent(panel, name)
    images_P, p_images_P = (np.full(len(places), np.nan) for _ in range(2))
    images = 0
    if found is not None:
        sums, factor = found
        num_IA, den_I1 = sums.num_den()
        images = int((den_I1 > 0).sum())
        counts_BI = resampling_matrix(sums.images, seed=seed)
        difference = paired_difference((num_IA[:, first], den_I1), (num_IA[:, second], den_I1), counts_BI)
        ratio_BA = factor * resampled_ratio(num_IA, den_I1, counts_BI)
        images_P = np.nanstd(ratio_BA[:, first] - ratio_BA[:, second], axis=0, ddof=1)
        p_images_P = difference.p
    error_P, freedom_P = combined_error(seeds_P, noise.freedom, images_P, images - 1)
    half_P = error_P * _quantile(freedom_P)
    p_seeds_P = t_test(gap_P, seeds_P, np.full(len(places), float(noise.freedom)))
    p_P = t_test(gap_P, error_P, freedom_P)
    columns = (gap_P, gap_P - half_P, gap_P + half_P, p_images_P, p_seeds_P, p_P, holm(p_P))
    out = {}
    for (i, j), row in zip(places, zip(*columns, strict=True), strict=True):
        one = Verdict(*map(float, row))
        out[panel.alignments[i], panel.alignments[j]] = one
        out[panel.alignments[j], panel.alignments[i]] = replace(
            one, value=-one.value, ci_low=-one.ci_high, ci_high=-one.ci_low
        )
    return out


def combined_error(
    seeds_P: np.ndarray, seeds_freedom: int, images_P: np.ndarray, images_freedom: int
) -> tuple[np.ndarray, np.ndarray]:
    """Standard error and Satterthwaite's degrees of freedom of differences with the given errors over seeds
    and over images. NaN for images adds nothing; NaN for seeds gives NaN."""
    images_P = np.nan_to_num(images_P)
    error_P = np.sqrt(seeds_P**2 + images_P**2)
    parts_P = seeds_P**4 / max(seeds_freedom, 1) + images_P**4 / max(images_freedom, 1)
    safe_P = np.where(parts_P > 0, parts_P, 1.0)
    return error_P, np.where(parts_P > 0, error_P**4 / safe_P, max(seeds_freedom, 1))


def t_test(gap: np.ndarray, error: np.ndarray, freedom: np.ndarray) -> np.ndarray:
    """Two-sided p of gap / error under Student's t; NaN without an error. Without any spread, p is 1 if there
    is no gap, else 0."""
    from scipy.special import stdtr

    gap, error = np.abs(gap), np.asarray(error, dtype=float)
    flat = error < FLAT
    p = 2 * stdtr(np.maximum(freedom, 1), -gap / np.where(flat, 1.0, error))
    p = np.where(flat, np.where(gap < FLAT, 1.0, 0.0), p)
    return np.where(np.isnan(error), np.nan, p)


def _quantile(freedom: np.ndarray) -> np.ndarray:
    from scipy.special import stdtrit

    return stdtrit(np.maximum(freedom, 1), 1 - LEVEL / 2)


def group_estimates(
    panel: Panel, name: str, group: str, member: object, factor: float, seed: int = 0
) -> list[Estimate]:
    """As `estimates`, over the examples of one member of a group; empty if it has none."""
    sums = panel.values(name, group, member)
    if sums is None:
        return []
    num_IA, den_I1 = sums.num_den()
    counts_BI = resampling_matrix(sums.images, seed=seed)
    low_A, high_A = interval(resampled_ratio(num_IA, den_I1, counts_BI))
    value_A = ratio(num_IA, den_I1)
    mean_AS = factor * sums.value_ASE.mean(2)
    sd_A = mean_AS.std(1, ddof=1) if panel.seeds > 1 else np.full(len(mean_AS), np.nan)
    rows = zip(factor * value_A, factor * low_A, factor * high_A, sd_A, strict=True)
    return [Estimate(float(v), float(a), float(b), float(s), sums.examples) for v, a, b, s in rows]
