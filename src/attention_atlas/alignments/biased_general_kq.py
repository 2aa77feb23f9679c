"""Biased general* (Sordoni et al. 2016 with query and key swapped): f(K,Q) = K(WQ + b)."""

from __future__ import annotations

from attention_atlas.alignments.base import General


class BiasedGeneralKQ(General):
    """score_qk = k·(W q + b). The term k·b favours some keys independently of the query.

    SCAN's and M4C's published code use the product with its axes swapped.
    """

    swapped_in = frozenset({"scan", "m4c"})
    bias = True
    of_queries = True
