"""The share of attention, when a word is generated, on earlier words of given parts of speech.

Eq. 3 of "Attention as Grounding" with T = one generated word, S = the visible words whose universal POS tag
is in a set. The paper's two sets are {DET, ADJ, NOUN} (objects) and {VERB, ADP} (relations); Figure 5
shows both, averaged over the samples of the test set, and correlates them over heads (r = -0.71, n = 48).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import interval, pearson, pearson_p, ratio, resampled_ratio
from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Key, Metric, Tally, check_bos

UNIVERSAL = (
    *("ADJ", "ADP", "ADV", "AUX", "CCONJ", "DET", "INTJ", "NOUN", "NUM"),
    *("PART", "PRON", "PROPN", "PUNCT", "SCONJ", "SYM", "VERB", "X"),
)


class PosShare(Metric):
    """Share of attention on sets of POS tags, and on each tag alone.

    `sets`: lists of tags; a condition is named after its tags, "DET+ADJ+NOUN". `each`: also every tag that
    occurs. `average`: words (every generated word counts once; n = words) or examples (average within each
    example first; n = examples). `bos`: drop (shares of the attention on words) or keep (BOS counts in the
    denominator). `correlate`: two conditions whose values are correlated over heads; measure
    `pos_correlation` (r of `condition` and `against` with a bootstrap interval over images; statistic p:
    Student's t), n = heads.
    """

    name = "pos_share"

    def __init__(
        self,
        sets: Sequence[Sequence[str]],
        kinds: Sequence[str] = ("decoder_self",),
        correlate: Sequence[str] = (),
        each: bool = True,
        average: str = "words",
        bos: str = "drop",
    ) -> None:
        if average not in ("words", "examples"):
            raise AtlasError(f"metric pos_share: average: '{average}' is not 'words' or 'examples'")
        self.sets = {"+".join(tags): tuple(tags) for tags in sets}
        for name, tags in self.sets.items():
            for tag in tags:
                if tag not in UNIVERSAL:
                    raise AtlasError(f"metric pos_share: sets: {name}: '{tag}' is not a universal POS tag")
        unknown = [name for name in correlate if name not in self.sets]
        if unknown or len(correlate) not in (0, 2):
            raise AtlasError("metric pos_share: correlate: must name two of `sets`")
        self.kinds = tuple(kinds)
        self.correlate, self.each = tuple(correlate), each
        self.average, self.bos = average, check_bos(bos)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        counted_QK = index.counted_QK(self.bos)
        # Words without a visible earlier word (the first one, without BOS) have no shares.
        sees_Q = (counted_QK & index.keys).any(axis=1)
        words = np.flatnonzero((index.rows_WQ * sees_Q).sum(axis=1) > 0)
        if not len(words):
            return
        rows_WQ, groups = index.rows_WQ[words], self._groups(item)
        member_WG = np.stack(list(groups.values()), axis=1).astype(np.float32)
        # The last group contains all keys that count: its mass is the denominator.
        member_KG = np.concatenate(
            [index.keys_WK.T @ member_WG, np.ones((len(index.keys), 1), np.float32)], axis=1
        )
        mass_LHWG = rows_WQ @ (index.counted_LHQK(self.bos) @ member_KG)
        total_LHW1 = mass_LHWG[..., -1:]
        valid_LHW = total_LHW1[..., 0] > 1e-9
        share_LHWG = np.divide(
            mass_LHWG[..., :-1], total_LHW1, out=np.zeros_like(mass_LHWG[..., :-1]), where=total_LHW1 > 1e-9
        )
        seen_WG = rows_WQ @ (counted_QK.astype(np.float32) @ member_KG)
        chance_G = (seen_WG[:, :-1] / seen_WG[:, -1:]).sum(axis=0)
        num_LHG, den_LH, units = share_LHWG.sum(axis=2), valid_LHW.sum(axis=2).astype(float), len(words)
        chance_den = float(len(words))
        if self.average == "examples":
            num_LHG = num_LHG / np.maximum(den_LH, 1)[..., None]
            chance_G, den_LH = chance_G / len(words), np.minimum(den_LH, 1)
            units, chance_den = 1, 1.0
        for g, name in enumerate(groups):
            tally.add(item.image, name, num_LHG[..., g], den_LH, units, (float(chance_G[g]), chance_den))

    def _groups(self, item: Item) -> dict[str, np.ndarray]:
        """{condition: (W,) membership}. Includes every tag: one that does not occur in an example has share 0
        there, not NaN."""
        pos = np.array([token.pos for token in item.parse.tokens])
        groups = {name: np.isin(pos, tags) for name, tags in self.sets.items()}
        if self.each:
            groups |= {tag: pos == tag for tag in UNIVERSAL if tag not in groups}
        return groups

    def keys(self, tally: Tally) -> list[Key]:
        """Omits the tags that never occur."""
        return [k for k, sums in tally.sums.items() if k.condition in self.sets or sums.chance_num_I.any()]

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        rows = super().rows(attention, kind, tally)
        if not self.correlate or not tally.sums:
            return rows
        values, resampled = [], []
        for name in self.correlate:
            sums = tally.sums[Key(name)]
            value_LH = ratio(sums.num_ILH, sums.den_ILH)
            values.append(value_LH.ravel())
            resampled.append(
                resampled_ratio(sums.num_ILH, sums.den_ILH, attention.counts_BI).reshape(-1, value_LH.size)
            )
        r = float(pearson(values[0], values[1]))
        low, high = interval(pearson(resampled[0], resampled[1]))
        n = len(values[0])
        first, second = self.correlate
        base = {"kind": kind, "measure": "pos_correlation", "condition": first, "against": second, "n": n}
        rows.append(base | {"value": r, "ci_low": low, "ci_high": high, "chance": 0.0})
        rows.append(base | {"statistic": "p", "value": pearson_p(r, n)})
        return rows
