"""How well a map over an image's tokens fits boxes: three measures, and baseline maps that ignore the image.

pointing  whether the token with the largest value is a hit (pointing game, Zhang et al. 2018, with tokens
          in place of pixels; `Target.of` says which tokens count). Tied largest values count in part.
mass      share of the map inside the boxes; a token on their edge counts by the part of its area inside
          (energy-based pointing game, Wang et al. 2020).
iou       intersection over union of the boxes and the region where the map per pixel is at least its mean
          over the seen image. The mean is the threshold at which Kang et al. (2025) binarise maps; they
          also smooth the map and take the hull of the region; this measure does not.

Axes: C maps, T image tokens with a place, N sets of boxes, M measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from attention_atlas.measures.places import Places, Target

MEASURES = ("pointing", "mass", "iou")
CHANCES = ("uniform", "area", "centre")
# Values that differ by rounding are equal: the largest ones, and those at the mean.
SAME, NEAR = 1e-5, 1e-4
SPREAD = 0.25  # standard deviation of the centre's Gaussian, in widths and heights of the image


def normalised(map_CT: Tensor) -> Tensor:
    """Each map divided by its sum; a map without any attention stays 0."""
    total_C1 = map_CT.sum(-1, keepdim=True)
    return map_CT / torch.where(total_C1 > 0, total_C1, 1)


def scores(map_CT: Tensor, places: Places, targets: Sequence[Target]) -> np.ndarray:
    """(M,C,N) values in 0..1. A map of zeros scores 0: a head that does not see the image finds nothing."""
    map_CT = normalised(map_CT)

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(t, name) for t in targets], -1)).to(map_CT)

    seen_C1 = (map_CT.sum(-1, keepdim=True) > 0).to(map_CT)
    top_CT = (map_CT >= map_CT.amax(-1, keepdim=True) * (1 - SAME)).to(map_CT)
    pointing_CN = top_CT @ stacked("hit_T") / top_CT.sum(-1, keepdim=True) * seen_C1
    mass_CN = map_CT @ stacked("inside_T")
    mask_CS = places.density(map_CT) >= (1 - NEAR) / places.seen
    area_S = torch.from_numpy(places.cell_area_S).to(map_CT)
    mask_CS = (mask_CS & (area_S > 0)).to(map_CT) * seen_C1
    inside_SN = stacked("inside_S")
    both_CN = mask_CS @ inside_SN
    iou_CN = both_CN / (mask_CS @ area_S[:, None] + inside_SN.sum(0) - both_CN)
    return torch.stack([pointing_CN, mass_CN, iou_CN]).double().numpy()


def chances(places: Places, size: tuple[int, int], target: Target) -> np.ndarray:
    """(M,B) scores of maps that do not look at the image; size: its width and height.

    uniform: the same on every token. area: the same on every pixel that a token covers; for pointing, a token
    drawn in proportion to its area. The two differ only where tokens differ in size or overlap. centre: a
    Gaussian around the centre of the image, with a quarter of its width and height as standard deviations.
    """
    offset_T2 = (places.centre_T2 / np.array(size) - 0.5) / SPREAD
    centre_T = places.area_T * np.exp(-(offset_T2**2).sum(1) / 2)
    maps_CT = torch.from_numpy(np.stack([np.ones_like(places.area_T), centre_T]))
    uniform_M, centre_M = scores(maps_CT, places, [target])[..., 0].T
    share = target.area / places.seen
    area_M = [places.area_T @ target.hit_T / places.area_T.sum(), share, share]
    return np.stack([uniform_M, area_M, centre_M], 1)
