"""AttnGAN as one module: text encoder and image encoder (a frozen DAMSM), generator, discriminators."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.alignments.base import Alignment
from attention_atlas.language.vocabulary import PAD
from attention_atlas.models.attngan.damsm import Damsm
from attention_atlas.models.attngan.discriminator import Discriminator
from attention_atlas.models.attngan.generator import Generator

Batch = dict[str, Tensor]


class AttnGan(nn.Module):
    """forward(batch) -> the final images (B,3,S,S) in -1..1 for `ids_BT` (words, PAD...) and `noise_BZ`,
    drawn if missing.

    damsm: the model section of a DAMSM run; `TextToImageTask.start` loads its weights, which stay frozen.
    alignment: an alignment or its configuration, for the attention of each stage. stages, first: number of
    images and side of the first (in the paper 3 and 64). average: decay of the running mean of the
    generator's weights used in evaluation (0: none; 0.999 as published).
    """

    def __init__(
        self,
        vocab_size: int,
        damsm: Mapping[str, Any],
        alignment: Mapping[str, Any] | Alignment | None = None,
        stages: int = 3,
        first: int = 64,
        channels: int = 32,
        critic_channels: int = 64,
        noise: int = 100,
        condition: int = 100,
        residuals: int = 2,
        average: float = 0.999,
    ) -> None:
        super().__init__()
        self.damsm = _damsm(damsm, vocab_size)
        dim = self.damsm.dim
        self.generator = Generator(dim, alignment, stages, first, channels, noise, condition, residuals)
        self.decay = average
        self.average = copy.deepcopy(self.generator).requires_grad_(False) if average else None
        self.critics = nn.ModuleList(
            Discriminator(size, dim, critic_channels) for size in self.generator.sizes
        )

    @property
    def size(self) -> int:
        """Side of the final image."""
        return self.generator.sizes[-1]

    def train(self, mode: bool = True) -> AttnGan:
        """The DAMSM stays in evaluation mode."""
        super().train(mode)
        self.damsm.eval()
        return self

    def read(self, ids_BT: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """words (B,T,D), sentence (B,D), mask of the words (B,T), without gradient."""
        with torch.no_grad():
            words_BTD, sentence_BD = self.damsm.text(ids_BT)
        return words_BTD, sentence_BD, ids_BT != PAD

    def noise(self, like_BX: Tensor) -> Tensor:
        return torch.randn(len(like_BX), self.generator.noise, device=like_BX.device)

    def forward(self, batch: Batch) -> Tensor:
        words_BTD, sentence_BD, words_BT = self.read(batch["ids_BT"])
        noise_BZ = batch["noise_BZ"] if "noise_BZ" in batch else self.noise(sentence_BD)
        chosen = self.generator if self.training or self.average is None else self.average
        return chosen(noise_BZ, sentence_BD, words_BTD, words_BT)[0][-1]

    @torch.no_grad()
    def follow(self) -> None:
        """Update the averaged generator towards the current one."""
        if self.average is None:
            return
        for mean, now in zip(self.average.parameters(), self.generator.parameters()):
            mean.lerp_(now, 1 - self.decay)
        for kept, buffer in zip(self.average.buffers(), self.generator.buffers()):
            kept.copy_(buffer)


def _damsm(config: Mapping[str, Any], vocab_size: int) -> Damsm:
    from omegaconf import DictConfig, OmegaConf

    from attention_atlas.models.run_folder import build_model

    plain: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else dict(config)
    built = build_model(plain, vocab_size=vocab_size)
    assert isinstance(built, Damsm)
    return built.requires_grad_(False).eval()
