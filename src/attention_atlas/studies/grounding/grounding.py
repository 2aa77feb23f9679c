"""Share of attention from the words of a noun phrase to the regions it is linked with.

Eq. 3 of "Attention as Grounding" with T = a noun phrase, S = its linked regions, over cross-attention. The
equation is a ratio of sums over all phrases; the figure's caption says "averaged over the noun phrases".
Both are reported, as conditions:

- `phrases`: mean over phrases of each phrase's own proportion (the default everywhere; every phrase counts
  once);
- `ratio_of_sums`: all phrases pooled before dividing (longer phrases weigh more).

Chance is the same formula over uninformed attention: uniform over the regions, i.e. the share of linked
regions (column `chance`), and proportional to the regions' area (measure `grounding_chance`, condition
`area`; `uniform` repeats the column with an interval).

The highest of 48 heads exceeds chance by luck alone, and its interval ignores the selection. So measure
`grounding_held_out` selects the head on every other image and measures it on the remaining images, and vice
versa: uninformed attention then stays at chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import ratio
from attention_atlas.measures.item import Item, proportion
from attention_atlas.measures.metric import Key, Metric, Sums, Tally, chance_of, check_bos, head_rows

# Heads whose span got no attention at all (nothing visible) have no proportion.
EPSILON = 1e-9
CHANCE = "grounding_chance"


class Grounding(Metric):
    """P over linked noun phrases, per head, layer and overall; n = phrases.

    `kinds`: attention over regions. `bos`: drop (markers among the keys leave the denominator) or keep.
    Nested phrases count separately, each with its own link. Phrases without a link are left out.
    """

    name = "grounding"

    def __init__(self, kinds: Sequence[str] = ("cross",), bos: str = "drop") -> None:
        self.kinds = tuple(kinds)
        self.bos = check_bos(bos)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        spans = [(link.start, link.end) for link in item.links]
        target_PQ = index.target_PQ(spans)
        # A phrase beyond the model's maximum text length has no rows.
        kept = np.flatnonzero(target_PQ.sum(axis=1) > 0)
        links = [item.links[int(p)] for p in kept]
        if not links:
            return
        target_PQ, source_PK = target_PQ[kept], item.regions_PK(links, len(index.keys))
        counted_QK = index.counted_QK(self.bos)
        num_LHP, den_LHP = proportion(index.counted_LHQK(self.bos), target_PQ, source_PK)
        uniform = baseline_proportion(np.ones(len(index.keys)), target_PQ, source_PK, counted_QK)
        add_proportions(tally, item.image, "phrases", num_LHP, den_LHP, uniform)
        tally.add(
            item.image,
            "ratio_of_sums",
            num_LHP.sum(axis=-1),
            den_LHP.sum(axis=-1),
            len(links),
            (float(uniform[0].sum()), float(uniform[1].sum())),
        )
        _add_chance(tally, item.image, "uniform", uniform)
        if item.areas_N is not None:
            weights = np.zeros(len(index.keys))
            known = min(len(weights), len(item.areas_N))
            weights[:known] = item.areas_N[:known]
            _add_chance(
                tally, item.image, "area", baseline_proportion(weights, target_PQ, source_PK, counted_QK)
            )

    def keys(self, tally: Tally) -> list[Key]:
        return [key for key in tally.sums if key.measure != CHANCE]

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        rows = super().rows(attention, kind, tally)
        for key, sums in tally.sums.items():
            if key.measure == CHANCE:
                rows += _overall(sums, attention.counts_BI, self.base(kind, key))
            else:
                base = self.base(kind, key) | {"measure": "grounding_held_out"}
                rows += held_out(sums, attention.counts_BI, base)
        return rows


def add_proportions(
    tally: Tally,
    image: int,
    condition: str,
    num_LHP: np.ndarray,
    den_LHP: np.ndarray,
    uniform: tuple[np.ndarray, np.ndarray],
) -> None:
    """Add the spans' own proportions (a mean over spans); spans that attended to nothing are left out."""
    valid_LHP = den_LHP > EPSILON
    share_LHP = np.divide(num_LHP, den_LHP, out=np.zeros_like(num_LHP), where=valid_LHP)
    any_P = valid_LHP.any(axis=(0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        chance_P = (uniform[0] / uniform[1])[any_P]
    count = int(any_P.sum())
    if count:
        sums = share_LHP.sum(axis=-1), valid_LHP.sum(axis=-1)
        tally.add(image, condition, *sums, count, (float(chance_P.sum()), float(count)))


def baseline_proportion(
    weights_K: np.ndarray, target_PQ: np.ndarray, source_PK: np.ndarray, counted_QK: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 3's numerator and denominator (P,) for attention proportional to `weights_K` among the counted
    keys."""
    attn_QK = counted_QK * weights_K
    total_Q1 = attn_QK.sum(axis=1, keepdims=True)
    attn_QK = np.divide(attn_QK, total_Q1, out=np.zeros_like(attn_QK, dtype=np.float64), where=total_Q1 > 0)
    num, den = proportion(attn_QK[None, None], target_PQ, source_PK)
    return num[0, 0], den[0, 0]


def held_out(sums: Sums, counts_BI: np.ndarray, base: dict[str, Any]) -> list[dict[str, Any]]:
    """One row: the head that is highest on one half of the images, measured on the other half, and vice
    versa.

    Halves alternate in the order of image ids. No row for a single image or a half without phrases.
    """
    images = len(sums.num_ILH)
    half_I = np.arange(images) % 2
    num_I, den_I = np.zeros(images), np.zeros(images)
    for half in (0, 1):
        value_LH = ratio(sums.num_ILH[half_I != half], sums.den_ILH[half_I != half])
        if np.isnan(value_LH).all():
            return []
        layer, head = np.unravel_index(np.nanargmax(value_LH), value_LH.shape)
        here_I = half_I == half
        num_I[here_I] = sums.num_ILH[here_I, layer, head]
        den_I[here_I] = sums.den_ILH[here_I, layer, head]
    shape = (images, 1, 1)
    base = base | {"n": sums.n}
    return head_rows(num_I.reshape(shape), den_I.reshape(shape), counts_BI, chance_of(sums), base)[:1]


def _add_chance(tally: Tally, image: int, name: str, sums: tuple[np.ndarray, np.ndarray]) -> None:
    share = sums[0] / sums[1]
    num_LH, den_LH = np.array([[share.sum()]]), np.array([[float(len(share))]])
    tally.add(image, Key(name, measure=CHANCE), num_LH, den_LH, len(share))


def _overall(sums: Sums, counts_BI: np.ndarray, base: dict[str, Any]) -> list[dict[str, Any]]:
    return head_rows(sums.num_ILH, sums.den_ILH, counts_BI, float("nan"), base | {"n": sums.n})[:1]
