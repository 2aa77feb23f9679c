"""Dot product (Luong et al. 2015): f(Q,K) = QK."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, same_size


class Dot(Bilinear):
    """score_qk = Σ_d q_d k_d (equation 5 of the alignment study)."""

    def __init__(self, dim: int, key_dim: int | None = None, layout: str = "correct") -> None:
        super().__init__(dim, key_dim, layout)
        same_size(self)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return q, k, 1.0
