"""Layers shared by the generators: one half of the channels gates the other half (GLU)."""

from __future__ import annotations

from torch import Tensor, nn


def conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False)


def up_block(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles the side: nearest-neighbour upsampling, then a gated convolution."""
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        conv(inputs, 2 * outputs),
        nn.BatchNorm2d(2 * outputs),
        nn.GLU(1),
    )


class Residual(nn.Module):
    """x (B,C,H,W) plus two convolutions of it, the first gated."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            conv(channels, 2 * channels),
            nn.BatchNorm2d(2 * channels),
            nn.GLU(1),
            conv(channels, channels),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


def to_image(channels: int) -> nn.Sequential:
    """(B,C,H,W) -> pixels (B,3,H,W) in -1..1."""
    return nn.Sequential(conv(channels, 3), nn.Tanh())
