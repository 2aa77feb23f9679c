"""Biased general* (Sordoni et al. 2016 with query and key swapped): f(K,Q) = K(WQ + b)."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, matrix


class BiasedGeneralKQ(Bilinear):
    """score_qk = k·(W q + b). The term k·b favours some keys independently of the query.

    SCAN's and M4C's published code use the product with its axes swapped.
    """

    swapped_in = frozenset({"scan", "m4c"})

    def __init__(
        self, dim: int, key_dim: int | None = None, layout: str = "correct", init: str = "linear"
    ) -> None:
        super().__init__(dim, key_dim, layout)
        self.weight = matrix(self.dim, self.key_dim, bias=True, init=init)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return self.weight(q), k, 1.0
