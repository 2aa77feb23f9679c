"""Scaled dot product (Vaswani et al. 2017): f(Q,K) = QK / √d."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, same_size


class ScaledDot(Bilinear):
    """score_qk = Σ_d q_d k_d / √D (equation 6)."""

    def __init__(self, dim: int, key_dim: int | None = None, layout: str = "correct") -> None:
        super().__init__(dim, key_dim, layout)
        same_size(self)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return q, k, self.dim**-0.5
