"""How far back attention reaches: in the paper, text-only attention is diagonal, the captioner's stays on
nouns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Metric, Tally


class Locality(Metric):
    """Distance in words between the generated and the attended word, over attention to words (START dropped).

    Conditions: `distance`: Σ α · (t − s) / Σ α over all rows, in words, at least 1; `previous word`: the
    share of the word just before. Only words that see two words or more; n = their number. Chance: uniform
    attention.
    """

    name = "locality"

    def __init__(self, kinds: Sequence[str] = ("decoder_self",)) -> None:
        self.kinds = tuple(kinds)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        attn_LHQK, counted_QK = index.counted_LHQK("drop"), index.counted_QK("drop")
        rows = np.flatnonzero(index.query_counts & (counted_QK.sum(1) > 1) & (index.query_word >= 0))
        if not len(rows):
            return
        distance_QK = index.query_word[rows][:, None] - index.key_word[None, :]
        uniform_QK = counted_QK[rows] / counted_QK[rows].sum(1, keepdims=True)
        attn_LHQK = attn_LHQK[:, :, rows]
        total_LH = attn_LHQK.sum(axis=(2, 3))
        for name, weight_QK in (("distance", distance_QK), ("previous word", distance_QK == 1)):
            weight_QK = weight_QK.astype(np.float32)
            num_LH = np.einsum("lhqk,qk->lh", attn_LHQK, weight_QK)
            chance = (float((uniform_QK * weight_QK).sum()), float(len(rows)))
            tally.add(item.image, name, num_LH, total_LH, len(rows), chance)
