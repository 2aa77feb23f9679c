"""Two images and two captions with the same words in different order, each true of its own image only.

The layout is Winoground's (Thrush et al. 2022, section 3): a model that treats a caption as a bag of words
cannot distinguish the two. Two kinds of swap:

    attribute   "a red cube left of a blue sphere"  /  "a blue cube left of a red sphere"
    relation    "a red cube left of a blue sphere"  /  "a blue sphere left of a red cube"
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Example, write_examples
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.synthetic.tabletop.asking import WORDS
from attention_atlas.synthetic.tabletop.captions import CLEAR_ASIDE, CLEAR_DEEPER
from attention_atlas.synthetic.tabletop.table import RELATIONS, Item, Table, holds, read_tables
from attention_atlas.synthetic.tabletop.telling import Telling, a, matching

SWAPS = ("attribute", "relation")
Name = tuple[str, str]  # an adjective (colour, size or material) and a shape


@dataclass(frozen=True)
class Claim:
    """ "a <first> <relation> a <second>": what a caption says."""

    kind: str  # of the adjectives: color, size, material
    first: Name
    relation: str
    second: Name

    def swapped(self, swap: str) -> Claim:
        """The same words in another order."""
        if swap == "relation":
            return Claim(self.kind, self.second, self.relation, self.first)
        (one, shape), (other, other_shape) = self.first, self.second
        return Claim(self.kind, (other, shape), self.relation, (one, other_shape))

    def things(self, table: Table) -> list[tuple[Item, Item]]:
        """All pairs of objects that match it."""
        firsts, seconds = (
            matching(table, {self.kind: word, "shape": shape}) for word, shape in (self.first, self.second)
        )
        return [(i, j) for i in firsts for j in seconds if i.id != j.id and holds(i, self.relation, j)]


@dataclass(frozen=True)
class Pair:
    """Two images by number, each with the claim that is true only of it."""

    swap: str
    images: tuple[int, int]
    claims: tuple[Claim, Claim]


def claims(table: Table, kind: str) -> Iterator[Claim]:
    """The claims that are clearly true of a table, about two objects that the words identify uniquely."""
    for i in table.items:
        for j in table.items:
            if i.id == j.id:
                continue
            names = [(str(getattr(item, kind)), item.shape) for item in (i, j)]
            if any(len(matching(table, {kind: word, "shape": shape})) > 1 for word, shape in names):
                continue
            for relation in RELATIONS:
                aside = relation in ("left", "right")
                apart = abs(i.side - j.side) if aside else abs(i.depth - j.depth)
                if holds(i, relation, j) and apart >= (CLEAR_ASIDE if aside else CLEAR_DEEPER):
                    yield Claim(kind, names[0], relation, names[1])


def find_pairs(
    tables: Sequence[Table], pairs: int, times: int, kinds: Sequence[str], rng: np.random.Generator
) -> list[Pair]:
    """Up to `pairs` of each swap; no image is used more than `times` times for a swap, no claim twice."""
    tables_of: dict[Claim, list[int]] = {}
    for number, table in enumerate(tables):
        for kind in kinds:
            for claim in claims(table, kind):
                tables_of.setdefault(claim, []).append(number)
    known = list(tables_of)
    found: list[Pair] = []
    for swap in SWAPS:
        used: Counter[int] = Counter()
        taken: set[Claim] = set()
        of_swap = 0
        for at in rng.permutation(len(known)):
            claim = known[int(at)]
            other = claim.swapped(swap)
            if of_swap == pairs or other == claim or other not in tables_of or {claim, other} & taken:
                continue
            images = _images(tables, tables_of, claim, other, used, times)
            if images is not None:
                found.append(Pair(swap, images, (claim, other)))
                taken |= {claim, other}
                used.update(images)
                of_swap += 1
    return found


def _images(
    tables: Sequence[Table],
    tables_of: dict[Claim, list[int]],
    claim: Claim,
    other: Claim,
    used: Counter[int],
    times: int,
) -> tuple[int, int] | None:
    """The least used image of which only `claim` is true, and that of which only `other` is."""
    chosen = []
    for true, untrue in ((claim, other), (other, claim)):
        fit = [n for n in tables_of[true] if used[n] < times and not untrue.things(tables[n])]
        if not fit:
            return None
        chosen.append(min(fit, key=lambda n: (used[n], n)))
    return chosen[0], chosen[1]


class Order:
    """The annotator of data=tabletop_order.

    pairs: maximum number per swap and split; splits: the splits to use, separately; times: maximum number of
    uses of an image per swap; kinds: kinds of adjectives (color, size, material).
    """

    def __init__(
        self,
        pairs: int = 100,
        splits: Sequence[str] = ("val", "test"),
        times: int = 2,
        kinds: Sequence[str] = ("color",),
    ) -> None:
        if pairs < 1 or times < 1:
            raise ConfigError("Order: pairs and times must be at least 1")
        unknown = sorted(set(kinds) - {"color", "size", "material"})
        if unknown or not kinds:
            raise ConfigError(f"Order: kinds: {unknown or 'empty'}; give some of color, size, material")
        self.pairs, self.splits, self.times, self.kinds = pairs, list(splits), times, list(kinds)

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write two Examples for each pair to `out`."""
        tables = read_tables(corpus_root)
        examples: list[Example] = []
        for number, split in enumerate(self.splits):
            some = [(i, table) for i, (scene, table) in tables.items() if scene.split == split]
            rng = np.random.default_rng([seed, number, 11])
            found = find_pairs([table for _, table in some], self.pairs, self.times, self.kinds, rng)
            for n, pair in enumerate(found):
                examples += _examples(f"{split}_{n:05d}", pair, some)
        if not examples:
            raise AtlasError(
                f"{corpus_root}: splits {', '.join(self.splits)}: no two images match the same words in"
                " different order; render more scenes"
            )
        write_examples(out, examples)


def _examples(pair_id: str, pair: Pair, tables: Sequence[tuple[str, Table]]) -> list[Example]:
    made = []
    for side, image, claim in zip("ab", pair.images, pair.claims, strict=True):
        image_id, table = tables[image]
        ((first, second),) = claim.things(table)
        caption = Telling()
        target = caption.name([first.id], a({claim.kind: claim.first[0], "shape": claim.first[1]}))
        words = caption.say(WORDS[claim.relation])
        landmark = caption.name([second.id], a({claim.kind: claim.second[0], "shape": claim.second[1]}))
        caption.relate(claim.relation, target, words, landmark)
        made.append(Example(f"{pair_id}.{side}", image_id, caption.text, caption.phrases, caption.relations))
    for one, other in ((made[0], made[1]), (made[1], made[0])):
        one.extra = {
            "pair": pair_id,
            "swap": pair.swap,
            "other": other.id,
            "other_image": other.image_id,
            "other_text": other.text,
        }
    return made
