"""One discriminator per stage: whether the image is real, and whether it is real and matches the
sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError


class Discriminator(nn.Module):
    """pixels (B,3,S,S) -> features (B,C,4,4); `judge` gives both logits (B,) from features and sentences
    (B,D)."""

    def __init__(self, size: int, dim: int, channels: int = 64) -> None:
        super().__init__()
        halvings = (size // 4).bit_length() - 1
        if size < 8 or 4 * 2**halvings != size:
            raise ConfigError(f"Discriminator: first: {size} must be 8, 16, 32, ...")
        layers: list[nn.Module] = []
        wide = 3
        for i in range(halvings):
            more = channels * 2 ** min(i, 3)
            layers.append(nn.Conv2d(wide, more, 4, 2, 1, bias=False))
            if i:
                layers.append(nn.BatchNorm2d(more))
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            wide = more
        self.trunk = nn.Sequential(*layers)
        self.alone = nn.Conv2d(wide, 1, 4)
        self.joint = nn.Sequential(
            nn.Conv2d(wide + dim, wide, 3, 1, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(wide, 1, 4),
        )

    def forward(self, pixels_BCSS: Tensor) -> Tensor:
        return self.trunk(pixels_BCSS)

    def judge(self, features_BCHW: Tensor, sentence_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(logit alone, logit with the sentence)."""
        return self.alone(features_BCHW).flatten(), self.with_sentence(features_BCHW, sentence_BD)

    def with_sentence(self, features_BCHW: Tensor, sentence_BD: Tensor) -> Tensor:
        spread = sentence_BD[:, :, None, None].expand(-1, -1, *features_BCHW.shape[-2:])
        return self.joint(torch.cat([features_BCHW, spread], 1)).flatten()


def real(logit_B: Tensor) -> Tensor:
    """-log of the probability of "real"."""
    return F.softplus(-logit_B).mean()


def fake(logit_B: Tensor) -> Tensor:
    """-log of the probability of "generated"."""
    return F.softplus(logit_B).mean()


def discriminator_loss(
    critic: Discriminator, true_BCSS: Tensor, made_BCSS: Tensor, sentence_BD: Tensor
) -> Tensor:
    """The discriminator's loss; a real image with the next pair's sentence counts as false:
    (real alone + real with) / 2 + (made alone + made with + wrong sentence) / 3, as in the published code."""
    true, made = critic(true_BCSS), critic(made_BCSS.detach())
    true_alone, true_with = critic.judge(true, sentence_BD)
    made_alone, made_with = critic.judge(made, sentence_BD)
    wrong = critic.with_sentence(true[:-1], sentence_BD[1:])
    return (real(true_alone) + real(true_with)) / 2 + (fake(made_alone) + fake(made_with) + fake(wrong)) / 3


def generator_loss(critic: Discriminator, made_BCSS: Tensor, sentence_BD: Tensor) -> Tensor:
    """The generator's loss, without and with the sentence (eq. 4)."""
    alone, together = critic.judge(critic(made_BCSS), sentence_BD)
    return real(alone) + real(together)
