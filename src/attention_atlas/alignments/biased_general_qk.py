"""Biased general† (Sordoni et al. 2016): f(Q,K) = Q(WK + b)."""

from __future__ import annotations

from attention_atlas.alignments.base import General


class BiasedGeneralQK(General):
    """score_qk = q·(W k + b) (equation 8). The term q·b is the same for all keys, so softmax cancels it.

    In SCAN's published code the product is (word, region) where the next line expects (region, word).
    """

    swapped_in = frozenset({"scan"})
    bias = True
    of_queries = False
