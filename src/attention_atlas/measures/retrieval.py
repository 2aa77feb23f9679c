"""Recall at K of text-image retrieval in both directions, from a matrix of similarities.

Axes: I images, C captions; several captions may belong to one image. A query is a hit if one of its own
candidates is among the K most similar. Ties are in random order: the value is then the probability of a hit,
so a model with constant similarities is at chance, not at 0 or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError

DIRECTIONS = ("sentence", "image")  # what is retrieved; the query is the other one


def hits(similarity_QN: Any, relevant_QN: Any, ks: Sequence[int]) -> np.ndarray:
    """Probability that one of a query's relevant candidates is among the first K, (Q, len(ks)).

    relevant_QN: bool. With b better irrelevant candidates, e equal ones and r relevant ones at the best
    relevant similarity, m = K − b places are left, and the query fails with C(e,m) / C(e+r,m). Raises
    AtlasError for a query without a relevant candidate, different shapes, or values that are not finite.
    """
    similarity_QN, relevant_QN = np.asarray(similarity_QN), np.asarray(relevant_QN, bool)
    if similarity_QN.shape != relevant_QN.shape or similarity_QN.ndim != 2:
        raise AtlasError(
            f"retrieval: similarities {similarity_QN.shape} and relevance {relevant_QN.shape} "
            "must both be (queries, candidates)"
        )
    if not np.isfinite(similarity_QN).all():
        raise AtlasError("retrieval: similarities are not finite; retrain the model")
    if not relevant_QN.any(1).all():
        query = int(np.flatnonzero(~relevant_QN.any(1))[0])
        raise AtlasError(f"retrieval: query {query} has no relevant candidate; remove it")
    best_Q = np.where(relevant_QN, similarity_QN, -np.inf).max(1)
    above_Q = (similarity_QN > best_Q[:, None]).sum(1)
    level_QN = similarity_QN == best_Q[:, None]
    equal_Q, own_Q = (level_QN & ~relevant_QN).sum(1), (level_QN & relevant_QN).sum(1)
    return np.stack([1 - missed(equal_Q, own_Q, k - above_Q) for k in ks], 1)


def missed(others_Q: np.ndarray, own_Q: np.ndarray, places_Q: np.ndarray) -> np.ndarray:
    """Probability that `places` draws from `own` + `others` candidates include no own: C(e,m) / C(e+r,m)."""
    chance_Q = np.ones(len(others_Q))
    for i, (e, r, m) in enumerate(zip(others_Q.tolist(), own_Q.tolist(), places_Q.tolist())):
        if m > e:
            chance_Q[i] = 0.0
        elif m > 0:
            # C(e,m) / C(e+r,m) = Π_j (e−m+1+j) / (e+1+j), j = 0..r−1.
            chance_Q[i] = np.prod([(e - m + 1 + j) / (e + 1 + j) for j in range(r)])
    return chance_Q


def chance(candidates: int, relevant: int, k: int) -> float:
    """Recall at k of a random order: 1 − C(N−r,k) / C(N,k)."""
    one = np.array([1])
    return float(1 - missed(one * (candidates - relevant), one * relevant, one * k)[0])


def relevance(image_of_C: Sequence[int], images: int) -> np.ndarray:
    """relevant_IC: whether caption c belongs to image i; image_of_C: numbers 0..images-1."""
    return np.arange(images)[:, None] == np.asarray(image_of_C)[None, :]


def recalls(
    similarity_IC: Any, image_of_C: Sequence[int], ks: Sequence[int] = (1, 5, 10)
) -> tuple[dict[str, float], dict[str, np.ndarray]]:
    """(numbers in per cent, hits of every query).

    Numbers: "R@K sentence" (query an image: one of its captions among the first K), "R@K image" (query a
    caption), their "Rsum sentence", "Rsum image" and "Rsum" (all six), each also with the suffix " chance".
    Hits: {direction: (queries, len(ks)) in 0..1, in the order of `ks`}.
    """
    relevant_IC = relevance(image_of_C, len(similarity_IC))
    similarity_IC = np.asarray(similarity_IC)
    found = {
        "sentence": hits(similarity_IC, relevant_IC, ks),
        "image": hits(similarity_IC.T, relevant_IC.T, ks),
    }
    images, captions = relevant_IC.shape
    expected: dict[str, Any] = {
        "sentence": [np.mean([chance(captions, int(n), k) for n in relevant_IC.sum(1)]) for k in ks],
        "image": [chance(images, 1, k) for k in ks],
    }
    numbers: dict[str, float] = {}
    seen: dict[str, Any] = {d: found[d].mean(0) for d in DIRECTIONS}
    for end, values in (("", seen), (" chance", expected)):
        for direction in DIRECTIONS:
            for k, value in zip(ks, values[direction]):
                numbers[f"R@{k} {direction}{end}"] = 100 * float(value)
            numbers[f"Rsum {direction}{end}"] = 100 * float(np.sum(values[direction]))
        numbers[f"Rsum{end}"] = sum(numbers[f"Rsum {d}{end}"] for d in DIRECTIONS)
    return numbers, found
