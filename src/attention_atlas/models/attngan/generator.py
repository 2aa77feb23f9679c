"""The generators: from noise and sentence to a small image, doubled by each later stage with attention to
words.

Axes: B images, Z noise, T words, D units of a word, C channels, H and W rows and columns, Q = H·W regions.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.alignments.base import Alignment
from attention_atlas.alignments.build import build_alignment
from attention_atlas.capture.seam import attend
from attention_atlas.errors import ConfigError
from attention_atlas.models.attngan.blocks import Residual, to_image, up_block


class Conditioning(nn.Module):
    """Conditioning augmentation (Zhang et al. 2017): sentence (B,D) -> a draw (B,C) from N(mean, variance),
    its mean and the logarithm of its variance. In evaluation mode too, as published."""

    def __init__(self, dim: int, condition: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(dim, 4 * condition), nn.GLU(1))

    def forward(self, sentence_BD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean_BC, logvar_BC = self.layer(sentence_BD).chunk(2, -1)
        return mean_BC + torch.randn_like(mean_BC) * (logvar_BC / 2).exp(), mean_BC, logvar_BC


def divergence(mean_BC: Tensor, logvar_BC: Tensor) -> Tensor:
    """KL divergence from the standard normal, mean over B and C as in the published code."""
    return -0.5 * (1 + logvar_BC - mean_BC.square() - logvar_BC.exp()).mean()


class WordAttention(nn.Module):
    """The word context of each region (the paper's F_attn): queries are regions, keys and values the words
    after a linear layer; softmax over words."""

    attention_kind = "cross"

    def __init__(
        self, word_dim: int, channels: int, layer_index: int, alignment: Mapping[str, Any] | Alignment | None
    ) -> None:
        super().__init__()
        self.layer_index = layer_index
        self.project = nn.Linear(word_dim, channels, bias=False)
        self.alignment = build_alignment(alignment, channels)

    def forward(self, hidden_BCHW: Tensor, words_BTD: Tensor, words_BT: Tensor) -> Tensor:
        query_B1QC = hidden_BCHW.flatten(2).transpose(1, 2)[:, None]
        words_B1TC = self.project(words_BTD)[:, None]
        mask_B11T = words_BT[:, None, None]
        context = attend(self, query_B1QC, words_B1TC, words_B1TC, mask=mask_B11T, alignment=self.alignment)
        return context[:, 0].transpose(1, 2).reshape_as(hidden_BCHW)


class FirstStage(nn.Module):
    """(B, noise + condition) -> hidden (B,C,S,S)."""

    def __init__(self, inputs: int, channels: int, size: int) -> None:
        super().__init__()
        doublings = (size // 4).bit_length() - 1
        if size < 8 or 4 * 2**doublings != size:
            raise ConfigError(f"FirstStage: first: {size} must be 8, 16, 32, ...")
        self.wide = channels * 2**doublings
        self.start = nn.Sequential(
            nn.Linear(inputs, self.wide * 16 * 2, bias=False), nn.BatchNorm1d(self.wide * 16 * 2), nn.GLU(1)
        )
        sizes = [self.wide // 2**i for i in range(doublings + 1)]
        self.up = nn.Sequential(*(up_block(a, b) for a, b in pairwise(sizes)))

    def forward(self, condition_BX: Tensor) -> Tensor:
        return self.up(self.start(condition_BX).view(-1, self.wide, 4, 4))


class NextStage(nn.Module):
    """hidden (B,C,S,S) and words -> hidden (B,C,2S,2S)."""

    def __init__(self, channels: int, residuals: int, attention: WordAttention) -> None:
        super().__init__()
        self.attention = attention
        self.residuals = nn.Sequential(*(Residual(2 * channels) for _ in range(residuals)))
        self.up = up_block(2 * channels, channels)

    def forward(self, hidden_BCHW: Tensor, words_BTD: Tensor, words_BT: Tensor) -> Tensor:
        context_BCHW = self.attention(hidden_BCHW, words_BTD, words_BT)
        return self.up(self.residuals(torch.cat([hidden_BCHW, context_BCHW], 1)))


class Generator(nn.Module):
    """All stages: noise (B,Z), sentence (B,D), words (B,T,D) -> images with sides first, 2·first, ... and
    the mean and log variance of the condition."""

    def __init__(
        self,
        dim: int,
        alignment: Mapping[str, Any] | Alignment | None = None,
        stages: int = 3,
        first: int = 64,
        channels: int = 32,
        noise: int = 100,
        condition: int = 100,
        residuals: int = 2,
    ) -> None:
        super().__init__()
        if stages < 2:
            raise ConfigError(f"Generator: stages: must be at least 2, not {stages}; the first has no words")
        self.noise, self.sizes = noise, [first * 2**i for i in range(stages)]
        self.condition = Conditioning(dim, condition)
        self.first = FirstStage(noise + condition, channels, first)
        self.next = nn.ModuleList(
            NextStage(channels, residuals, WordAttention(dim, channels, i, alignment))
            for i in range(stages - 1)
        )
        self.images = nn.ModuleList(to_image(channels) for _ in range(stages))

    def forward(
        self, noise_BZ: Tensor, sentence_BD: Tensor, words_BTD: Tensor, words_BT: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        drawn_BC, mean_BC, logvar_BC = self.condition(sentence_BD)
        hidden = self.first(torch.cat([drawn_BC, noise_BZ], 1))
        out = [self.images[0](hidden)]
        for stage, image in zip(self.next, list(self.images)[1:]):
            hidden = stage(hidden, words_BTD, words_BT)
            out.append(image(hidden))
        return out, mean_BC, logvar_BC
