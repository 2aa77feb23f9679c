"""Cosine similarity, which SCAN uses (Lee et al. 2018)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from attention_atlas.alignments.base import Bilinear, same_size


class Cosine(Bilinear):
    """score_qk = q·k / (|q| |k|); a vector of length 0 scores 0 with everything."""

    def __init__(self, dim: int, key_dim: int | None = None, layout: str = "correct") -> None:
        super().__init__(dim, key_dim, layout)
        same_size(self)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return F.normalize(q, dim=-1, eps=1e-8), F.normalize(k, dim=-1, eps=1e-8), 1.0
