"""General* (Luong et al. 2015 with query and key swapped): f(K,Q) = KWQ."""

from __future__ import annotations

from torch import Tensor

from attention_atlas.alignments.base import Bilinear, matrix


class GeneralKQ(Bilinear):
    """score_qk = k·(W q): the query is transformed. W is (E,D).

    In M4C's published code the product is (K,Q) and is used as (Q,K).
    """

    swapped_in = frozenset({"m4c"})

    def __init__(
        self, dim: int, key_dim: int | None = None, layout: str = "correct", init: str = "linear"
    ) -> None:
        super().__init__(dim, key_dim, layout)
        self.weight = matrix(self.dim, self.key_dim, bias=False, init=init)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return self.weight(q), k, 1.0
