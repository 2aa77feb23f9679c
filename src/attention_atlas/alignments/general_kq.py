"""General* (Luong et al. 2015 with query and key swapped): f(K,Q) = KWQ."""

from __future__ import annotations

from attention_atlas.alignments.base import General


class GeneralKQ(General):
    """score_qk = k·(W q): the query is transformed. W is (E,D).

    In M4C's published code the product is (K,Q) and is used as (Q,K).
    """

    swapped_in = frozenset({"m4c"})
    of_queries = True
