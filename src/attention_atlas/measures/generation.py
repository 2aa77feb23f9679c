"""Formulas of the measures of generated images. Axes: N images, K classes, D units of a feature."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from attention_atlas.errors import AtlasError


def score_of(probabilities_NK: ArrayLike) -> float:
    """exp of the mean KL divergence of p(class | image) from p(class) (Salimans et al. 2016). This is the
    Inception score only with the Inception network's probabilities."""
    p_NK = np.asarray(probabilities_NK, np.float64)
    mean_K = p_NK.mean(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts_NK = np.where(p_NK > 0, p_NK * (np.log(p_NK) - np.log(mean_K)), 0.0)
    return float(np.exp(parts_NK.sum(1).mean()))


def frechet_distance(a_ND: ArrayLike, b_MD: ArrayLike) -> float:
    """|m1 - m2|² + tr(C1 + C2 - 2 (C1 C2)^½), means and covariances of two sets of features (Heusel et al.
    2017).

    With C = RᵀR, R from the QR decomposition of the centred features, the trace of the root is the sum of the
    singular values of R1 R2ᵀ. This avoids complex numbers and is cheap for few images of many units. Raises
    AtlasError for fewer than two images or different numbers of units.
    """
    a_ND, b_MD = np.asarray(a_ND, np.float64), np.asarray(b_MD, np.float64)
    if a_ND.ndim != 2 or b_MD.ndim != 2 or a_ND.shape[1] != b_MD.shape[1] or min(len(a_ND), len(b_MD)) < 2:
        raise AtlasError(
            f"Fréchet distance: features {a_ND.shape} and {b_MD.shape}: pass two sets (N,D) of two images "
            f"or more"
        )
    gap_D = a_ND.mean(0) - b_MD.mean(0)
    # R (min(N, D), D) and (min(M, D), D)
    one, two = (np.linalg.qr((x - x.mean(0)) / np.sqrt(len(x) - 1))[1] for x in (a_ND, b_MD))
    shared = np.linalg.svd(one @ two.T, compute_uv=False).sum()
    distance = gap_D @ gap_D + (one**2).sum() + (two**2).sum() - 2 * shared
    return float(max(distance, 0.0))


def r_precision(
    image_ND: ArrayLike, text_ND: ArrayLike, candidates: int = 100, seed: int = 0
) -> tuple[np.ndarray, float]:
    """Whether each image's own text is the closest by cosine among `candidates` texts (Xu et al. 2018,
    R = 1): its own and others drawn at random, deterministic in seed and N.

    Ties count as the probability of winning them. Returns ((N,) values in 0..1, chance level). With fewer
    texts than `candidates`, all are candidates. Raises AtlasError for fewer than two.
    """
    image_ND, text_ND = (_unit(x) for x in (image_ND, text_ND))
    count = len(image_ND)
    if image_ND.shape != text_ND.shape or count < 2 or candidates < 2:
        raise AtlasError(
            f"R-precision: images {image_ND.shape}, texts {text_ND.shape}, {candidates} candidates: give "
            f"as many "
            "texts as images, two or more"
        )
    size = min(candidates, count)
    rng = np.random.default_rng(seed)
    similarity_NN = image_ND @ text_ND.T
    hits = np.zeros(count)
    for i in range(count):
        others = rng.choice(count - 1, size - 1, replace=False)
        others[others >= i] += 1
        own, rest = similarity_NN[i, i], similarity_NN[i, others]
        if not (rest > own + 1e-9).any():
            hits[i] = 1 / (1 + (np.abs(rest - own) <= 1e-9).sum())
    return hits, 1 / size


def _unit(x: ArrayLike) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
