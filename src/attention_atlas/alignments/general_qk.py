"""General† (Luong et al. 2015): f(Q,K) = QWK."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, matrix


class GeneralQK(Bilinear):
    """score_qk = q·(W k) (equation 7): the key is transformed. W is (D,E).

    In SCAN's published code the product is (word, region) where the next line expects (region, word).
    """

    swapped_in = frozenset({"scan"})

    def __init__(
        self, dim: int, key_dim: int | None = None, layout: str = "correct", init: str = "linear"
    ) -> None:
        super().__init__(dim, key_dim, layout)
        self.weight = matrix(self.key_dim, self.dim, bias=False, init=init)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return q, self.weight(k), 1.0
