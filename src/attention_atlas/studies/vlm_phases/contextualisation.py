"""Mean cosine between hidden states of two sets of tokens (Ethayarajh 2019; Wei et al. 2025, eq. 1).

    s = 1/(mn) Σ_i Σ_j cos(v_i, w_j) = ⟨mean of v_i/‖v_i‖, mean of w_j/‖w_j‖⟩

so sums of unit vectors suffice: O(n·d), no n × m matrix. Sums of groups add up, so the groups (image,
prompt, caption) can be joined later.
Axes: B samples, T positions, D dim, G groups, L layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from torch import Tensor


def unit_sums(hidden_BTD: Tensor, member_BTG: Tensor) -> Tensor:
    """Σ of h/‖h‖ over each group's positions, (B,G,D) float32. A zero state counts as a zero vector."""
    x = hidden_BTD.float()
    unit = x / x.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return member_BTG.float().transpose(1, 2) @ unit


def between(sum_LD: np.ndarray, count: float, other_LD: np.ndarray, other_count: float) -> np.ndarray:
    """Mean cosine (L,) between two disjoint sets; NaN if one is empty. Arrays (..., D) give (...)."""
    if not count or not other_count:
        return np.full(sum_LD.shape[:-1], np.nan)
    return np.einsum("...d,...d->...", sum_LD, other_LD, dtype=np.float64) / (count * other_count)


def within(sum_LD: np.ndarray, count: float, self_pairs: bool = False) -> np.ndarray:
    """Mean cosine (L,) between the tokens of one set. A token has cosine 1 with itself, which makes small
    sets look similar; self-pairs (i = j) are therefore left out unless `self_pairs`."""
    square = np.einsum("...d,...d->...", sum_LD, sum_LD, dtype=np.float64)
    if self_pairs:
        return square / count**2 if count else np.full(square.shape, np.nan)
    return (square - count) / (count * (count - 1)) if count > 1 else np.full(square.shape, np.nan)


def across(mean_NLD: np.ndarray, other_NLD: np.ndarray, image_of: np.ndarray) -> np.ndarray:
    """Anisotropy baseline (N,L): for each sample the mean cosine between its tokens and the other set's
    tokens of samples of other images, from mean unit vectors. The similarity of any two states of a layer,
    independent of their content (Ethayarajh 2019, section 4.1).

    image_of: (N,) image of each sample. Raises AtlasError if all are of one image.
    """
    _, image_N = np.unique(image_of, return_inverse=True)
    images = int(image_N.max()) + 1 if len(image_N) else 0
    if images < 2:
        raise AtlasError("contextualisation: the baseline needs at least two images; take more samples")
    by_image = np.zeros((images, *other_NLD.shape[1:]))
    np.add.at(by_image, image_N, other_NLD)
    size_I = np.bincount(image_N, minlength=images)
    total_LD = by_image.sum(0)
    out = np.empty(mean_NLD.shape[:2])
    for n, image in enumerate(image_N):
        rest_LD = (total_LD - by_image[image]) / (len(image_N) - size_I[image])
        out[n] = np.einsum("ld,ld->l", mean_NLD[n], rest_LD)
    return out
