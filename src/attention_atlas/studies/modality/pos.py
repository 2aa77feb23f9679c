"""Attention to parts of speech, pooled as in "How Vision Affects Language" (Eq. 3; Vig and Belinkov 2019).

    P(α | tag) = Σ_captions Σ_i Σ_{j≤i} α(i, j) [pos(j) = tag]  /  Σ_captions Σ_i Σ_{j≤i} α(i, j)

A ratio of sums over all rows and captions; attention to START is ignored in both sums. (The metric
`pos_share` of study 1 gives every generated word the same weight instead.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio
from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Key, Metric, Tally, check_bos
from attention_atlas.measures.pos import UNIVERSAL


class PosMass(Metric):
    """P(α | tag) per head for every tag that occurs; n = generated words that see a word.

    `above`: tag -> thresholds; measure `heads_above` counts the heads whose share is above a threshold
    (setting; the paper: 17 of 48 above 0.4 on NOUN, 33 above 0.3; 3 above 0.3 on VERB), with a bootstrap
    interval over images; n = heads. `bos`: drop, as in the paper, or keep (START stays in the denominator).
    """

    name = "pos_mass"

    def __init__(
        self,
        above: Mapping[str, Sequence[float]] | None = None,
        kinds: Sequence[str] = ("decoder_self",),
        bos: str = "drop",
    ) -> None:
        self.above = {str(tag): [float(t) for t in values] for tag, values in (above or {}).items()}
        for tag in self.above:
            if tag not in UNIVERSAL:
                raise AtlasError(
                    f"metric pos_mass: above.{tag}: is not a universal POS tag; correct the YAML"
                )
        self.kinds, self.bos = tuple(kinds), check_bos(bos)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        rows = np.flatnonzero(index.query_counts & (index.counted_QK("drop").sum(1) > 0))
        if not len(rows):
            return
        pos = np.array([t.pos for t in item.parse.tokens])
        tags = list(UNIVERSAL)
        member_WG = (pos[:, None] == np.array(tags)).astype(np.float32)
        member_KG = index.keys_WK.T @ member_WG
        attn_LHQK = index.counted_LHQK(self.bos)[:, :, rows]
        mass_LHG = attn_LHQK.sum(axis=2) @ member_KG
        total_LH = attn_LHQK.sum(axis=(2, 3))
        counted_QK = index.counted_QK(self.bos)[rows]
        # Uniform attention: each row spreads 1 over the visible words.
        uniform_K = (counted_QK / counted_QK.sum(1, keepdims=True)).sum(0)
        uniform_G = uniform_K @ member_KG
        for g, tag in enumerate(tags):
            chance = (float(uniform_G[g]), float(len(rows)))
            tally.add(item.image, tag, mass_LHG[..., g], total_LH, len(rows), chance)

    def keys(self, tally: Tally) -> list[Key]:
        """Tags that occur, the most attended (by uniform attention) first."""
        found = {k: float(s.chance_num_I.sum()) for k, s in tally.sums.items() if s.chance_num_I.any()}
        return sorted(found, key=lambda k: (-found[k], k))

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        rows = super().rows(attention, kind, tally)
        for tag, thresholds in self.above.items():
            if Key(tag) not in tally.sums:
                continue
            sums = tally.sums[Key(tag)]
            value_LH = ratio(sums.num_ILH, sums.den_ILH)
            value_BLH = resampled_ratio(sums.num_ILH, sums.den_ILH, attention.counts_BI)
            for threshold in thresholds:
                above_B = (value_BLH > threshold).sum(axis=(1, 2)).astype(float)
                above_B[np.isnan(value_BLH).all(axis=(1, 2))] = np.nan
                low, high = interval(above_B)
                rows.append(
                    {"kind": kind, "measure": "heads_above", "condition": tag, "setting": f"{threshold:g}"}
                    | {
                        "value": int((value_LH > threshold).sum()),
                        "ci_low": float(low),
                        "ci_high": float(high),
                    }
                    | {"n": value_LH.size}
                )
        return rows


def word_shares(attention: AnnotatedAttention) -> list[dict[str, Any]]:
    """The share of each universal tag among the words of the captions, measure `words`, 95 % bootstrap over
    images; n = words."""
    count_IG = np.zeros((attention.images, len(UNIVERSAL)))
    for id_ in attention.ids:
        for token in attention.parses[id_].tokens:
            if token.pos in UNIVERSAL:  # not SPACE
                count_IG[attention.image_of[id_], UNIVERSAL.index(token.pos)] += 1
    total_I1 = count_IG.sum(1, keepdims=True)
    low_G, high_G = interval(resampled_ratio(count_IG, total_I1, attention.counts_BI))
    base = {"kind": "text", "measure": "words", "n": int(total_I1.sum())}
    base |= {"model": attention.model, "data": attention.data, "study": attention.name}
    return [
        base | {"condition": tag, "value": value, "ci_low": low, "ci_high": high}
        for tag, value, low, high in zip(UNIVERSAL, ratio(count_IG, total_I1), low_G, high_G)
        if value > 0
    ]
