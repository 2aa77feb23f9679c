"""Which differences between alignments exceed noise: of seeds (Welch's test), of test pictures (paired
bootstrap), corrected over the alignments (Holm 1979)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention_atlas.alignment_study.panel import Panel, Sums
from attention_atlas.metrics.bootstrap import (
    interval,
    paired_difference,
    ratio,
    resampled_ratio,
    resampling_matrix,
)

LEVEL = 0.05
FLAT = 1e-9  # a spread below is rounding


@dataclass(frozen=True)
class Estimate:
    """Mean over seeds and examples, 95 % interval (NaN where there is none), standard deviation over seeds
    (NaN for one), number of examples (0: the score is of the whole set)."""

    value: float
    ci_low: float
    ci_high: float
    seed_sd: float
    n: int


@dataclass(frozen=True)
class Verdict:
    """A difference to another alignment. p_seeds is NaN for one seed; `p` is the larger of those known, with
    Holm's correction over the alignments; real: p < 0.05."""

    value: float
    ci_low: float
    ci_high: float
    p_examples: float
    p_seeds: float
    p: float

    @property
    def real(self) -> bool:
        return bool(self.p < LEVEL)


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
    """One per alignment. The interval resamples pictures where the score is a mean over examples; else it is
    Student's over the seeds; with one seed there is none."""
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
    from scipy.special import stdtrit

    seeds = score_AS.shape[1]
    if seeds < 2:
        return np.full(len(score_AS), np.nan), np.full(len(score_AS), np.nan)
    half = stdtrit(seeds - 1, 0.975) * score_AS.std(1, ddof=1) / np.sqrt(seeds)
    return score_AS.mean(1) - half, score_AS.mean(1) + half


def verdicts(panel: Panel, name: str, against: str, seed: int = 0) -> dict[str, Verdict]:
    """Every other alignment minus `against`. A difference counts as real only when both the seeds (where
    there are two or more) and the test pictures say so: the larger p is taken (intersection-union test)."""
    score_AS = panel.scores(name)
    place = panel.alignments.index(against)
    others = [i for i in range(len(score_AS)) if i != place]
    if not others:
        return {}
    seeds_O = np.array([welch(score_AS[i], score_AS[place]) for i in others])
    found = consistent(panel, name)
    examples_O = np.full(len(others), np.nan)
    value_O = (score_AS[others] - score_AS[place]).mean(1)
    low_O, high_O = (np.full(len(others), np.nan) for _ in range(2))
    if found is not None:
        sums, factor = found
        num_IA, den_I1 = sums.num_den()
        counts_BI = resampling_matrix(sums.images, seed=seed)
        difference = paired_difference((num_IA[:, others], den_I1), (num_IA[:, [place]], den_I1), counts_BI)
        examples_O, low_O, high_O = difference.p, factor * difference.ci_low, factor * difference.ci_high
    elif panel.seeds > 1:
        low_O, high_O = _welch_interval(score_AS[others], score_AS[place])
    p_O = holm(np.fmax(seeds_O, examples_O))
    return {
        panel.alignments[i]: Verdict(*map(float, row))
        for i, row in zip(
            others, zip(value_O, low_O, high_O, examples_O, seeds_O, p_O, strict=True), strict=True
        )
    }


def welch(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p of Welch's t test; NaN with one seed. Without spread: 1 when the means agree, else 0."""
    from scipy.special import stdtr

    if len(a) < 2 or len(b) < 2:
        return float("nan")
    gap, error, freedom = _welch(a, b)
    if error < FLAT:
        return 1.0 if abs(gap) < FLAT else 0.0
    return float(2 * stdtr(freedom, -abs(gap) / error))


def _welch(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float]:
    """Difference of means, its standard error, degrees of freedom (Welch 1947)."""
    parts = np.array([a.var(ddof=1) / len(a), b.var(ddof=1) / len(b)])
    error = float(np.sqrt(parts.sum()))
    if error < FLAT:
        return float(a.mean() - b.mean()), 0.0, 1.0
    freedom = parts.sum() ** 2 / (parts[0] ** 2 / (len(a) - 1) + parts[1] ** 2 / (len(b) - 1))
    return float(a.mean() - b.mean()), error, float(freedom)


def _welch_interval(a_OS: np.ndarray, b_S: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.special import stdtrit

    found = np.array([_welch(a, b_S) for a in a_OS])
    half = found[:, 1] * stdtrit(found[:, 2], 0.975)
    return found[:, 0] - half, found[:, 0] + half


def holm(p: np.ndarray) -> np.ndarray:
    """p values with Holm's step-down correction; NaN stays and counts for nothing."""
    p = np.asarray(p, dtype=float)
    out = np.full(len(p), np.nan)
    known = [i for i in np.argsort(p, kind="stable") if not np.isnan(p[i])]
    highest = 0.0
    for rank, i in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * p[i]))
        out[i] = highest
    return out


def group_estimates(
    panel: Panel, name: str, group: str, member: object, factor: float, seed: int = 0
) -> list[Estimate]:
    """As `estimates`, over the examples of one member of a group; empty when it has none."""
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
