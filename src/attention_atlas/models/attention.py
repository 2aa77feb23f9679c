"""Multi-head attention that can be captured through the seam (attention_atlas/capture/seam.py)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.seam import attend
from attention_atlas.errors import ConfigError


class MultiHeadAttention(nn.Module):
    """Queries from one sequence, keys and values from the same or another (Vaswani et al. 2017, eq. 1).

    `attention_kind` (encoder_self, decoder_self or cross) and `layer_index` identify it in a capture.
    `alignment` is None for the scaled dot product, or an object of attention_atlas.alignments.
    """

    def __init__(
        self, dim: int, heads: int, kind: str, layer_index: int, dropout: float = 0.0, alignment: Any = None
    ) -> None:
        super().__init__()
        if dim % heads:
            raise ConfigError(
                f"MultiHeadAttention: dim: {dim} is not a multiple of heads {heads}; change one of them"
            )
        self.attention_kind = kind
        self.layer_index = layer_index
        self.heads = heads
        self.dropout = dropout
        self.alignment = alignment
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def split(self, x_BTD: Tensor) -> Tensor:
        """(B,T,D) to (B,H,T,D/H)."""
        batch, length, dim = x_BTD.shape
        return x_BTD.view(batch, length, self.heads, dim // self.heads).transpose(1, 2)

    def keys_values(self, source_BKD: Tensor) -> tuple[Tensor, Tensor]:
        """Projected keys and values, each (B,H,K,D/H), which a decoder can cache."""
        return self.split(self.key(source_BKD)), self.split(self.value(source_BKD))

    def forward(
        self,
        target_BQD: Tensor,
        source_BKD: Tensor | None = None,
        *,
        keys_values: tuple[Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Attend from target to source (default: the target itself), or to `keys_values` if given.

        mask: bool, broadcastable to (B,H,Q,K), True = may attend. bias: float, added to the scaled score.
        Returns (B,Q,D).
        """
        if keys_values is None:
            keys_values = self.keys_values(target_BQD if source_BKD is None else source_BKD)
        q_BHQD = self.split(self.query(target_BQD))
        context_BHQD = attend(
            self,
            q_BHQD,
            *keys_values,
            mask=mask,
            bias=bias,
            dropout=self.dropout if self.training else 0.0,
            alignment=self.alignment,
        )
        return self.output(context_BHQD.transpose(1, 2).reshape(target_BQD.shape))


def causal_mask(length: int, device: torch.device) -> Tensor:
    """(1,1,Q,K) bool: position i may attend to 0..i."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
