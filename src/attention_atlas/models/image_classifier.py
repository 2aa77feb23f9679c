"""A small CNN that classifies attributes of images, for the measures of generated images.

Axes: B images, S side in pixels, X slots, P = (S/2)² positions, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2)
    )


class ImageClassifier(nn.Module):
    """pixels (B,3,S,S) in -1..1 -> logits, one tensor (B,values) per slot.

    Each slot attends to its position in the image; one layer shared by all slots classifies what is there,
    so that a colour learned on the wing is recognised on the throat. values: number of values of each slot
    (from the task); channels: of the first convolution; dim: units read at a position.
    """

    def __init__(self, values: Sequence[int], size: int = 32, channels: int = 24, dim: int = 96) -> None:
        super().__init__()
        if size % 8:
            raise ConfigError(f"ImageClassifier: size: {size} must be a multiple of 8")
        self.values, self.size = list(values), size
        fine, coarse = channels, 2 * channels
        self.fine = nn.Sequential(_conv(3, fine, 2), _conv(fine, fine, 1))
        self.coarse = nn.Sequential(_conv(fine, coarse, 2), _conv(coarse, coarse, 1))
        self.wide = nn.Sequential(_conv(coarse, 2 * coarse, 2), _conv(2 * coarse, 2 * coarse, 1))
        # Two channels of coordinates for the position within the image.
        self.place = nn.Conv2d(fine + 3 * coarse + 2, len(self.values), 1)
        self.what = nn.Sequential(nn.Linear(fine + coarse + 3, dim), nn.LeakyReLU(0.2))
        self.slot_XD = nn.Parameter(torch.zeros(len(self.values), dim))
        self.head = nn.Sequential(nn.Linear(dim, dim), nn.LeakyReLU(0.2), nn.Linear(dim, max(self.values)))

    def looked(self, pixels_BCSS: Tensor) -> tuple[Tensor, Tensor]:
        """(features of each slot (B,X,D), its attention weights (B,X,P))."""
        fine = self.fine(pixels_BCSS)
        coarse = self.coarse(fine)
        side = fine.shape[-1]
        up = [F.interpolate(x, (side, side), mode="nearest") for x in (coarse, self.wide(coarse))]
        line = torch.linspace(-1, 1, side, device=pixels_BCSS.device)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij")).expand(len(fine), -1, -1, -1)
        where_BXP = self.place(torch.cat([fine, *up, grid], 1)).flatten(2).softmax(-1)
        small = F.adaptive_avg_pool2d(pixels_BCSS, side)
        there_BPC = torch.cat([fine, up[0], small], 1).flatten(2).transpose(1, 2)
        return self.what(where_BXP @ there_BPC), where_BXP

    def features(self, pixels_BCSS: Tensor) -> Tensor:
        """(B,D): the mean over slots, which Fréchet distances compare."""
        return self.looked(pixels_BCSS)[0].mean(1)

    def forward(self, pixels_BCSS: Tensor) -> list[Tensor]:
        return self.read(self.looked(pixels_BCSS)[0])

    def read(self, seen_BXD: Tensor) -> list[Tensor]:
        logits_BXV = self.head(seen_BXD + self.slot_XD)
        return [logits_BXV[:, x, :count] for x, count in enumerate(self.values)]
