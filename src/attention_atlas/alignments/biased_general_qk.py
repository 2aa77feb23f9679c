"""Biased general† (Sordoni et al. 2016): f(Q,K) = Q(WK + b)."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, matrix


class BiasedGeneralQK(Bilinear):
    """score_qk = q·(W k + b) (equation 8). The term q·b is the same for all keys, so softmax cancels it.

    In SCAN's published code the product is (word, region) where the next line expects (region, word).
    """

    swapped_in = frozenset({"scan"})

    def __init__(
        self, dim: int, key_dim: int | None = None, layout: str = "correct", init: str = "linear"
    ) -> None:
        super().__init__(dim, key_dim, layout)
        self.weight = matrix(self.key_dim, self.dim, bias=True, init=init)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return q, self.weight(k), 1.0
