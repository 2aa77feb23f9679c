"""Share of attention on the region that a word refers to, by alignment, and its correlation with
performance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import interval, resampled_ratio, resampling_matrix
from attention_atlas.studies.alignment.compare import consistent
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.tables import Row, is_lower, row

CORRELATION = "grounding correlation"
MEASURES = ("mass", "top1", "mass over chance")
EXACT = 8  # up to this many alignments (40,320 orders) all orders are counted; for more, a sample
SAMPLED = 10_000


def sums_by_image(panel: Panel, measure: str) -> tuple[np.ndarray, np.ndarray, int]:
    """num (I,A), den (I,A) of a measure, means over seeds, and the number of words (of one run). `mass over
    chance` is mean mass divided by mean chance. Each alignment has its own counts: the words of a caption are
    the same in every run, but the steps of an answer may differ."""
    image_of = panel.images
    images = max(image_of.values(), default=-1) + 1
    extra: dict[str, int] = {}
    num = np.zeros((images, len(panel.runs)))
    den = np.zeros_like(num)
    words = 0
    for a, found in enumerate(panel.runs.values()):
        for result in found[: panel.seeds]:
            if not result.grounding:
                raise AtlasError(f"runs of {panel.model}: {panel.alignments[a]}: no grounding rows")
            words = words or len(result.grounding)
            for item in result.grounding:
                example = item["example"]
                place = image_of.get(example)
                if place is None:
                    place = images + extra.setdefault(example, len(extra))
                    if place >= len(num):
                        num = np.vstack([num, np.zeros((1, num.shape[1]))])
                        den = np.vstack([den, np.zeros((1, den.shape[1]))])
                num[place, a] += item["top1"] if measure == "top1" else item["mass"]
                den[place, a] += item["chance"] if measure == "mass over chance" else 1
    return num / panel.seeds, den / panel.seeds, words


def grounding_rows(panel: Panel, seed: int = 0) -> Iterator[Row]:
    """kind `grounding`: mass, top1 (chance: uniform attention) and mass over chance, per alignment."""
    results = [r for found in panel.runs.values() for r in found]
    if not any(r.grounding for r in results):
        return
    chance = float(np.mean([item["chance"] for r in results for item in r.grounding]))
    for measure in MEASURES:
        num_IA, den_IA, words = sums_by_image(panel, measure)
        counts_BI = resampling_matrix(len(num_IA), seed=seed)
        low_A, high_A = interval(resampled_ratio(num_IA, den_IA, counts_BI))
        value_A = num_IA.sum(0) / den_IA.sum(0)
        for i, alignment in enumerate(panel.alignments):
            yield row(panel, "grounding", measure, alignment=alignment) | {
                "value": float(value_A[i]),
                "ci_low": float(low_A[i]),
                "ci_high": float(high_A[i]),
                "n": words,
                "chance": 1.0 if measure == "mass over chance" else chance,
            }


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Rank correlation with mean ranks for ties; NaN if one side has no spread."""
    return float(spearmans(np.asarray(x)[None], np.asarray(y)[None])[0])


def spearmans(x_BA: np.ndarray, y_BA: np.ndarray) -> np.ndarray:
    """`spearman` of each row (B,)."""
    x, y = _standard(x_BA), _standard(y_BA)
    return (x * y).mean(1)


def _standard(x_BA: np.ndarray) -> np.ndarray:
    """Ranks with mean 0 and spread 1; NaN in a row without spread."""
    x_BA = np.asarray(x_BA, dtype=float)
    below = (x_BA[:, None, :] < x_BA[:, :, None]).sum(2)
    level = (x_BA[:, None, :] == x_BA[:, :, None]).sum(2)
    rank = below + (level + 1) / 2  # ties get the mean of their ranks
    rank = rank - rank.mean(1, keepdims=True)
    spread = rank.std(1, keepdims=True)
    return np.divide(rank, spread, out=np.full_like(rank, np.nan), where=spread > 0)


def spearman_p(x: np.ndarray, y: np.ndarray, seed: int = 0) -> float:
    """Two-sided permutation p: the share of orders of y with at least this |rho|; exact for up to 8
    values."""
    seen = spearman(x, y)
    if np.isnan(seen):
        return float("nan")
    rx, ry = _standard(np.asarray(x)[None])[0], _standard(np.asarray(y)[None])[0]
    if len(rx) <= EXACT:
        orders = np.array(list(permutations(range(len(rx)))))
        null = np.abs((rx * ry[orders]).mean(1))
        return float((null >= abs(seen) - 1e-12).mean())
    rng = np.random.default_rng(seed)
    null = np.abs((rx * rng.permuted(np.tile(ry, (SAMPLED, 1)), axis=1)).mean(1))
    return float(((null >= abs(seen) - 1e-12).sum() + 1) / (SAMPLED + 1))


def correlation_rows(
    panel: Panel, name: str, lower: Sequence[str] = (), measure: str = "mass", seed: int = 0
) -> Iterator[Row]:
    """Kind `grounding correlation`: Spearman's rho over alignments of the score `name` (negated if less is
    better) and grounding (condition: its measure), n = alignments, and its p. The interval resamples test
    images in both; it is empty if the score is not a mean over examples."""
    if len(panel.runs) < 3 or not all(r.grounding for found in panel.runs.values() for r in found):
        return
    sign = -1.0 if is_lower(name, lower) else 1.0
    score_A = sign * panel.scores(name).mean(1)
    num_IA, den_IA, _ = sums_by_image(panel, measure)
    grounding_A = num_IA.sum(0) / den_IA.sum(0)
    rho = spearman(grounding_A, score_A)
    numbers: dict[str, Any] = {"value": rho, "n": len(score_A), "chance": 0.0}
    known = consistent(panel, name)
    if known is not None and not np.isnan(rho):
        sums, _ = known
        if sums.images <= len(num_IA):
            counts_BI = resampling_matrix(len(num_IA), seed=seed)
            ground_BA = resampled_ratio(num_IA, den_IA, counts_BI)
            score_BA = sign * resampled_ratio(*sums.num_den(), counts_BI[:, : sums.images])
            low, high = interval(spearmans(ground_BA, score_BA))
            numbers |= {"ci_low": float(low), "ci_high": float(high)}
    base = row(panel, CORRELATION, name, condition=measure)
    yield base | numbers
    p = spearman_p(grounding_A, score_A, seed)
    yield base | {"statistic": "p", "value": p, "n": len(score_A)}


def pooled_rows(
    panels: Sequence[Panel], names: Sequence[str], lower: Sequence[str] = (), seed: int = 0
) -> Iterator[Row]:
    """The mean of the panels' correlations of mass and score. p: random permutation of scores between
    alignments within each panel."""
    pairs = []
    for panel, name in zip(panels, names, strict=True):
        if len(panel.runs) < 3 or not all(r.grounding for found in panel.runs.values() for r in found):
            continue
        num_IA, den_IA, _ = sums_by_image(panel, "mass")
        score_A = (-1.0 if is_lower(name, lower) else 1.0) * panel.scores(name).mean(1)
        if not np.isnan(spearman(num_IA.sum(0) / den_IA.sum(0), score_A)):
            pairs.append((num_IA.sum(0) / den_IA.sum(0), score_A))
    if not pairs:
        return
    seen = float(np.mean([spearman(x, y) for x, y in pairs]))
    rng = np.random.default_rng(seed)
    null = np.zeros(SAMPLED)
    for x, y in pairs:
        rx, ry = _standard(x[None]), _standard(y[None])
        null += (rx * rng.permuted(np.tile(ry, (SAMPLED, 1)), axis=1)).mean(1) / len(pairs)
    p = (np.sum(np.abs(null) >= abs(seen) - 1e-12) + 1) / (SAMPLED + 1)
    base: Row = {"model": "all", "data": "all", "kind": CORRELATION, "measure": "score", "condition": "mass"}
    base["n"] = sum(len(x) for x, _ in pairs)
    yield base | {"value": seen, "chance": 0.0}
    yield base | {"statistic": "p", "value": float(p)}
