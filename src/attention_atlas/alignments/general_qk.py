"""General† (Luong et al. 2015): f(Q,K) = QWK."""

from __future__ import annotations

from attention_atlas.alignments.base import General


class GeneralQK(General):
    """score_qk = q·(W k) (equation 7): the key is transformed. W is (D,E).

    In SCAN's published code the product is (word, region) where the next line expects (region, word).
    """

    swapped_in = frozenset({"scan"})
    of_queries = False
