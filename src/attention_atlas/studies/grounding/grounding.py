"""Share of attention from the words of a noun phrase to the regions it is linked to.

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

Grounding may be low because links are wrong, because the phrase refers to no region, or because the model did
not expect the word. The same measures over subsets of phrases separate these causes, in two columns:

- `setting`: empty, all linked phrases; `linkable`, those whose referent has a region, by the gold links;
  `gold links`, the same phrases with their gold regions in place of the linked ones;
- `group`: the probability that the model gave the head word of the phrase, such as `p ≥ 0.5`.

Rows of `grounding_held_out` with `against` are paired differences: between a setting and the one before it,
and between the highest and the lowest group of probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import paired_difference, ratio
from attention_atlas.measures.item import Item, KindIndex, Link, proportion
from attention_atlas.measures.metric import Key, Metric, Sums, Tally, chance_of, check_bos, head_rows

# A head in which a span attends to nothing (no visible keys) has no proportion.
EPSILON = 1e-9
CHANCE = "grounding_chance"
LINKABLE, GOLD = "linkable", "gold links"
SETTINGS = ("", LINKABLE, GOLD)


class Grounding(Metric):
    """P over linked noun phrases, per head, layer and overall; n = phrases.

    `kinds`: attention over regions. `bos`: drop (markers among the keys leave the denominator) or keep.
    `probability`: ascending limits between groups of phrases by the probability of their head word; empty: no
    such groups. Nested phrases count separately, each with its own link. Phrases without a link are left out.
    """

    name = "grounding"

    def __init__(
        self, kinds: Sequence[str] = ("cross",), bos: str = "drop", probability: Sequence[float] = ()
    ) -> None:
        self.kinds = tuple(kinds)
        self.bos = check_bos(bos)
        self.limits = check_limits(probability)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        for setting, links in by_link(item).items():
            target_PQ = index.target_PQ([(link.start, link.end) for link in links])
            # A phrase beyond the model's maximum text length has no rows.
            kept = np.flatnonzero(target_PQ.sum(axis=1) > 0)
            if len(kept):
                self._add(tally, item, index, setting, [links[int(p)] for p in kept], target_PQ[kept])

    def _add(
        self,
        tally: Tally,
        item: Item,
        index: KindIndex,
        setting: str,
        links: Sequence[Link],
        target_PQ: np.ndarray,
    ) -> None:
        source_PK, counted_QK = item.regions_PK(links, len(index.keys)), index.counted_QK(self.bos)
        num_LHP, den_LHP = proportion(index.counted_LHQK(self.bos), target_PQ, source_PK)
        weights = {"uniform": np.ones(len(index.keys))}
        if item.areas_N is not None:
            weights["area"] = np.zeros(len(index.keys))
            known = min(len(index.keys), len(item.areas_N))
            weights["area"][:known] = item.areas_N[:known]
        chance = {
            name: np.stack(baseline_proportion(weights_K, target_PQ, source_PK, counted_QK))
            for name, weights_K in weights.items()
        }
        for group, chosen_P in self._groups(item, index, links).items():
            key = Key("phrases", group, setting=setting)
            add_proportions(
                tally, item.image, key, num_LHP[..., chosen_P], den_LHP[..., chosen_P],
                chance["uniform"][:, chosen_P],
            )  # fmt: skip
            for name, sums_2P in chance.items():
                _add_chance(tally, item.image, Key(name, group, CHANCE, setting), sums_2P[:, chosen_P])
        if not setting:
            sums = num_LHP.sum(axis=-1), den_LHP.sum(axis=-1)
            uniform = float(chance["uniform"][0].sum()), float(chance["uniform"][1].sum())
            tally.add(item.image, "ratio_of_sums", *sums, len(links), uniform)

    def _groups(self, item: Item, index: KindIndex, links: Sequence[Link]) -> dict[str, np.ndarray]:
        """(P,) bool by group: all phrases, and those of each range of the head word's probability. Phrases
        whose head has no probability are in no range."""
        groups = {"": np.ones(len(links), dtype=bool)}
        if self.limits and index.logprob_W is not None:
            p_P = np.exp([index.logprob_W[item.root((link.start, link.end))] for link in links])
            bounds = [-np.inf, *self.limits, np.inf]
            for name, low, high in zip(ranges(self.limits), bounds, bounds[1:], strict=False):
                groups[name] = (p_P >= low) & (p_P < high)
        return {name: chosen_P for name, chosen_P in groups.items() if chosen_P.any()}

    def keys(self, tally: Tally) -> list[Key]:
        """All linked phrases first, then each setting, its groups in ascending order."""
        groups = ["", *ranges(self.limits)]
        found = [key for key in tally.sums if key.measure != CHANCE]
        return sorted(found, key=lambda key: (SETTINGS.index(key.setting), groups.index(key.group)))

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        rows = super().rows(attention, kind, tally)
        held = {"measure": "grounding_held_out"}
        for key, sums in tally.sums.items():
            if key.measure == CHANCE:
                rows += _overall(sums, attention.counts_BI, self.base(kind, key))
            else:
                rows += held_out(sums, attention.counts_BI, self.base(kind, key) | held)
        for key, other, against in self._pairs():
            if key in tally.sums and other in tally.sums:
                base = self.base(kind, key) | held | {"against": against}
                rows += held_out_difference(tally.sums[key], tally.sums[other], attention.counts_BI, base)
        return rows

    def _pairs(self) -> list[tuple[Key, Key, str]]:
        """(key, other key, column `against`) of the differences."""
        names = ["", *ranges(self.limits)]
        pairs = [
            (Key("phrases", group, setting=after), Key("phrases", group, setting=before), before or "linked")
            for before, after in pairwise(SETTINGS)
            for group in names
        ]
        if self.limits:
            pairs += [
                (Key("phrases", names[-1], setting=s), Key("phrases", names[1], setting=s), names[1])
                for s in SETTINGS
            ]
        return pairs


def by_link(item: Item) -> dict[str, Sequence[Link]]:
    """The phrases of each setting with their regions. Without gold links, all linked phrases only."""
    found: dict[str, Sequence[Link]] = {"": item.links}
    if item.gold is not None:
        gold = {(link.start, link.end): link for link in item.gold}
        found[LINKABLE] = [link for link in item.links if (link.start, link.end) in gold]
        found[GOLD] = [gold[link.start, link.end] for link in found[LINKABLE]]
    return found


def ranges(limits: Sequence[float]) -> list[str]:
    """The names of the ranges between ascending limits.

    >>> ranges([0.1, 0.5])
    ['p < 0.1', '0.1 ≤ p < 0.5', 'p ≥ 0.5']
    """
    if not limits:
        return []
    inner = [f"{low:g} ≤ p < {high:g}" for low, high in pairwise(limits)]
    return [f"p < {limits[0]:g}", *inner, f"p ≥ {limits[-1]:g}"]


def check_limits(limits: Sequence[float]) -> tuple[float, ...]:
    values = tuple(float(limit) for limit in limits)
    if any(not 0 < limit < 1 for limit in values) or list(values) != sorted(set(values)):
        raise AtlasError(f"metric grounding: probability: {list(values)}: give ascending limits within 0..1")
    return values


def add_proportions(
    tally: Tally,
    image: int,
    key: Key | str,
    num_LHP: np.ndarray,
    den_LHP: np.ndarray,
    uniform: Sequence[np.ndarray] | np.ndarray,
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
        tally.add(image, key, *sums, count, (float(chance_P.sum()), float(count)))


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
    found = _held_out_sums(sums)
    if found is None:
        return []
    return head_rows(*found, counts_BI, chance_of(sums), base | {"n": sums.n})[:1]


def held_out_difference(
    sums: Sums, other: Sums, counts_BI: np.ndarray, base: dict[str, Any]
) -> list[dict[str, Any]]:
    """One row: the held-out value of `sums` minus that of `other`, with the interval of a paired bootstrap.
    Heads are selected separately for each."""
    first, second = _held_out_sums(sums), _held_out_sums(other)
    if first is None or second is None:
        return []
    gap = paired_difference(first, second, counts_BI)
    value, low, high = (float(x[0, 0]) for x in (gap.value, gap.ci_low, gap.ci_high))
    return [base | {"value": value, "ci_low": low, "ci_high": high, "n": sums.n, "chance": 0.0}]


def _held_out_sums(sums: Sums) -> tuple[np.ndarray, np.ndarray] | None:
    """Numerator and denominator (I, 1, 1) of the held-out heads; None if a half has no phrases."""
    images = len(sums.num_ILH)
    half_I = np.arange(images) % 2
    num_I, den_I = np.zeros(images), np.zeros(images)
    for half in (0, 1):
        value_LH = ratio(sums.num_ILH[half_I != half], sums.den_ILH[half_I != half])
        if np.isnan(value_LH).all():
            return None
        layer, head = np.unravel_index(np.nanargmax(value_LH), value_LH.shape)
        here_I = half_I == half
        num_I[here_I] = sums.num_ILH[here_I, layer, head]
        den_I[here_I] = sums.den_ILH[here_I, layer, head]
    return num_I.reshape(images, 1, 1), den_I.reshape(images, 1, 1)


def _add_chance(tally: Tally, image: int, key: Key, sums_2P: np.ndarray) -> None:
    share_P = sums_2P[0] / sums_2P[1]
    num_LH, den_LH = np.array([[share_P.sum()]]), np.array([[float(len(share_P))]])
    tally.add(image, key, num_LH, den_LH, len(share_P))


def _overall(sums: Sums, counts_BI: np.ndarray, base: dict[str, Any]) -> list[dict[str, Any]]:
    return head_rows(sums.num_ILH, sums.den_ILH, counts_BI, float("nan"), base | {"n": sums.n})[:1]
