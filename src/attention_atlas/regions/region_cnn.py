"""A small CNN that classifies a region from two crops, one tight and one with its surroundings.

Trained from scratch on the proposals of the train split. Its penultimate layer is the region feature, like
the pooled layer of the detector in bottom-up attention (Anderson et al. 2018, section 3.1). As there, the
label head has a background class and there is an attribute head; unlike there, attributes are independent
(sigmoid), because an object of the worlds has several at once. The position and size of the box are a further
input, because crops of one size hide them ("small" and "rug" depend on them).

Axes: B regions in a batch, D feature, C classes, A attributes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

CONTEXT = 2.0  # the second view is this many times as wide and high as the box
PLACE = 32  # units that encode where the box is


@dataclass
class RegionCNNConfig:
    """Sizes and schedule of the region CNN."""

    dim: int = 256  # D
    channels: tuple[int, int, int] = (32, 64, 128)
    crop: int = 24  # pixels of a view
    dropout: float = 0.2
    epochs: int = 6
    images_per_step: int = 8
    regions_per_image: int = 16
    lr: float = 3e-3
    warmup: float = 0.1  # fraction of the steps
    weight_decay: float = 0.02

    def __post_init__(self) -> None:
        # Hydra passes a list.
        first, second, third = (int(c) for c in self.channels)
        self.channels = (first, second, third)


def two_views(image: Image, boxes: np.ndarray, crop: int) -> np.ndarray:
    """Each box as given, and enlarged by CONTEXT around its centre, as (n,6,crop,crop) uint8."""
    from PIL.Image import Resampling

    limit = np.array([*image.size, *image.size], dtype=np.float64)
    boxes = np.clip(np.asarray(boxes, dtype=np.float64), 0, limit)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT / 2)
    wide = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, limit)
    views = np.empty((len(boxes), 2, crop, crop, 3), dtype=np.uint8)
    for i, pair in enumerate(zip(boxes, wide)):
        for view, (x1, y1, x2, y2) in enumerate(pair):
            # resize with a box averages over all pixels of large boxes, without skipping any.
            small = image.resize((crop, crop), Resampling.BILINEAR, box=(x1, y1, x2, y2))
            views[i, view] = np.asarray(small)
    return views.transpose(0, 1, 4, 2, 3).reshape(len(boxes), 6, crop, crop)


def places(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,6) float32: x1, y1, x2, y2, width, height of each box, relative to the image."""
    relative = np.asarray(boxes, dtype=np.float64) / np.array([*size, *size])
    return np.concatenate([relative, relative[:, 2:] - relative[:, :2]], axis=1).astype(np.float32)


def mirror(crops: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same regions of the horizontally mirrored image."""
    x1, y1, x2, y2, width, height = places.T
    return crops[..., ::-1], np.stack([1 - x2, y1, 1 - x1, y2, width, height], axis=1)


def build_net(config: RegionCNNConfig, labels: int, attributes: int) -> nn.Module:
    """forward(crops_B6HW uint8, places_B6) -> (features_BD >= 0, label logits (B, labels + 1), attribute
    logits (B, A))."""
    import torch
    from torch import nn

    first, second, third = config.channels

    def conv(inside: int, outside: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        ]

    class RegionCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *conv(6, first, 2), *conv(first, first, 1), *conv(first, second, 2), *conv(second, third, 2)
            )
            side = math.ceil(config.crop / 8)
            self.place = nn.Sequential(nn.Linear(6, PLACE), nn.ReLU())
            self.penultimate = nn.Sequential(
                nn.Dropout(config.dropout),
                nn.Linear(third * side * side + PLACE, config.dim, bias=False),
                nn.BatchNorm1d(config.dim),
                nn.ReLU(),
            )
            self.drop = nn.Dropout(config.dropout)
            self.label = nn.Linear(config.dim, labels + 1)
            self.attribute = nn.Linear(config.dim, attributes)

        def forward(self, crops_B6HW: Tensor, places_B6: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            pixels = crops_B6HW.float().div_(255).contiguous(memory_format=torch.channels_last)
            seen = self.body(pixels - 0.5).flatten(1)
            features_BD = self.penultimate(torch.cat([seen, self.place(places_B6)], dim=1))
            dropped = self.drop(features_BD)
            return features_BD, self.label(dropped), self.attribute(dropped)

    net = RegionCNN()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]
