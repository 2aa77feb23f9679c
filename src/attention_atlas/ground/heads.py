"""Heads picked on some images and measured on others; values with intervals over images.

The best of a thousand heads beats chance by luck on the images where it was picked. Therefore images are
split into folds; the head with the highest mean on the other folds is measured on each fold.

Axes: E examples, I images, F folds, M measures, C heads (layer · heads + head), K heads picked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.measures.bootstrap import (
    RESAMPLES,
    interval,
    paired_difference,
    ratio,
    resampled_ratio,
    resampling_matrix,
)


def by_image(values_EX: np.ndarray, image_E: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(sum, count) over the examples of each image, (I,...) each; NaN does not count."""
    known_EX = np.isfinite(values_EX)
    shape = (int(image_E.max()) + 1, *values_EX.shape[1:])
    total_IX, count_IX = np.zeros(shape), np.zeros(shape)
    np.add.at(total_IX, image_E, np.where(known_EX, values_EX, 0))
    np.add.at(count_IX, image_E, known_EX)
    return total_IX, count_IX


def estimate(values_EX: np.ndarray, image_E: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Mean over examples, with a 95 % interval over images: an image's examples are drawn together."""
    total_IX, count_IX = by_image(values_EX, image_E)
    low, high = interval(
        resampled_ratio(total_IX, count_IX, resampling_matrix(len(total_IX), RESAMPLES, seed))
    )
    return {"value": ratio(total_IX, count_IX), "ci_low": low, "ci_high": high}


def difference(
    first_EX: np.ndarray, second_EX: np.ndarray, image_E: np.ndarray, seed: int
) -> dict[str, np.ndarray]:
    """The same for the mean of the first minus that of the second, in the same resamples."""
    first, second = by_image(first_EX, image_E), by_image(second_EX, image_E)
    found = paired_difference(first, second, resampling_matrix(len(first[0]), RESAMPLES, seed))
    return {"value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high}


def folds_of(images: int, folds: int, seed: int) -> np.ndarray:
    """(I,) the fold of each image, drawn at random; sizes differ by one at most."""
    return np.random.default_rng(seed).permutation(images) % folds


def best_heads(values_EC: np.ndarray, count: int) -> np.ndarray:
    """(K,) the heads with the highest mean over examples, best first; the first among ties."""
    return np.argsort(-values_EC.mean(0), kind="stable")[:count]


def picked(values_EMC: np.ndarray, image_E: np.ndarray, fold_I: np.ndarray, count: int) -> np.ndarray:
    """(F,M,K) the best heads of each measure on the images of all other folds."""
    fold_E = fold_I[image_E]
    return np.stack(
        [
            [best_heads(values_EMC[fold_E != fold, m], count) for m in range(values_EMC.shape[1])]
            for fold in range(int(fold_I.max()) + 1)
        ]
    )


def compared(
    value_E: np.ndarray, against: dict[str, np.ndarray], image_E: np.ndarray, seed: int
) -> dict[str, Any]:
    """For summary.json: the estimate of (E,) values, and its differences to baselines."""
    plain = {name: float(x) for name, x in estimate(value_E, image_E, seed).items()}
    less = {
        name: {part: float(x) for part, x in difference(value_E, other_E, image_E, seed).items()}
        for name, other_E in against.items()
    }
    return {**plain, "above": less}


def of_heads(values_EMC: np.ndarray, heads_FMK: np.ndarray, fold_E: np.ndarray) -> np.ndarray:
    """(E,M) the value of the first head picked for each example's fold."""
    head_EM = heads_FMK[fold_E, :, 0]
    return np.take_along_axis(values_EMC, head_EM[..., None], 2)[..., 0]


def named(heads: Sequence[int] | np.ndarray, layers: Sequence[int], per_layer: int) -> list[list[int]]:
    """[layer, head] of each."""
    return [[int(layers[h // per_layer]), int(h % per_layer)] for h in heads]
