"""Attention over an image."""

from __future__ import annotations

from typing import Any

import numpy as np


def overlay(ax: Any, image: np.ndarray, grid_RC: np.ndarray, most: float) -> None:
    """Draw an image (H,W,3) and over it one value per patch: each cell of the grid covers the same share of
    the image. `most` is drawn opaque."""
    height, width = image.shape[:2]
    ax.imshow(image, extent=(0, width, height, 0))
    strength = np.clip(grid_RC / most, 0, 1) if most > 0 else np.zeros_like(grid_RC)
    colour = np.zeros((*grid_RC.shape, 4))
    colour[..., 0], colour[..., 1] = 1.0, 0.85
    colour[..., 3] = 0.85 * strength
    # Darken the patches with little attention, so that the attended parts stay visible.
    ax.imshow(np.array([[[0, 0, 0, 0.35]]]), extent=(0, width, height, 0))
    ax.imshow(colour, extent=(0, width, height, 0), interpolation="nearest")
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_xticks([])
    ax.set_yticks([])
    for spine in ax.spines.values():
        spine.set_visible(False)
