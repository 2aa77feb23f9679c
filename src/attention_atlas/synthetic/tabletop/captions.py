"""Up to five one-sentence captions per table: positions, counts and lists of shapes.

Every caption is true of its image; a phrase for one shape has attributes that are unique to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Span, write_examples
from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.tabletop.table import RELATIONS, Item, Table, holds, read_tables
from attention_atlas.synthetic.tabletop.telling import (
    NUMBERS,
    SIDE_WORDS,
    Telling,
    a,
    article,
    distinct,
    matching,
    wording,
)
from attention_atlas.synthetic.telling import Annotator, Chooser, numbered

TRIES = 60
CLEAR_ASIDE, CLEAR_DEEPER = 0.18, 0.3  # margins from which "left of" and "behind" are clear


@dataclass
class Writer(Chooser):
    """One table and a random generator."""

    table: Table
    rng: np.random.Generator

    def some(self, number: int) -> list[Item] | None:
        """This many different shapes in random order; None if there are too few."""
        if len(self.table.items) < number:
            return None
        order = self.rng.permutation(len(self.table.items))[:number]
        return [self.table.items[int(i)] for i in order]

    def name(self, out: Telling, item: Item, before: str = "") -> Span:
        """Say "a red cube", with only this shape having these attributes."""
        words_ = distinct(item, self.table, self.rng)
        if not before:
            return out.name([item.id], a(words_, self.rng))
        return out.name([item.id], f"{before} {wording(words_, self.rng)}")

    def place(self, out: Telling, target: Span, landmark: Item, relation: str) -> Span:
        """Say "to the left of a blue sphere"; returns the landmark's span."""
        words = out.say(self.pick(SIDE_WORDS[relation]))
        span = self.name(out, landmark)
        out.relate(relation, target, words, span)
        return span

    def on_table(self, out: Telling) -> None:
        kind = self.table.kind
        out.say(f"on {article(kind)} {kind} table" if self.rng.random() < 0.7 else "on a table")


def clear_relation(target: Item, landmark: Item, rng: np.random.Generator) -> str | None:
    """A random relation among those that hold by a wide margin."""
    relations = [r for r in RELATIONS if holds(target, r, landmark)]
    aside = abs(target.side - landmark.side) >= CLEAR_ASIDE
    deeper = abs(target.depth - landmark.depth) >= CLEAR_DEEPER
    clear = [r for r in relations if (aside if r in ("left", "right") else deeper)]
    return str(rng.choice(clear)) if clear else None


def beside(w: Writer, out: Telling) -> bool:
    """A red cube to the left of a small blue sphere."""
    pair = w.some(2)
    relation = clear_relation(pair[0], pair[1], w.rng) if pair else None
    if pair is None or relation is None:
        return False
    if w.rng.random() < 0.25:
        out.say("there is")
    w.place(out, w.name(out, pair[0]), pair[1], relation)
    if w.rng.random() < 0.15:
        w.on_table(out)
    return True


def two_places(w: Writer, out: Telling) -> bool:
    """A gray cone in front of a red cube and to the left of a ring."""
    three = w.some(3)
    if three is None:
        return False
    target, first, second = three
    relations = [clear_relation(target, landmark, w.rng) for landmark in (first, second)]
    if relations[0] is None or relations[1] is None:
        return False
    span = w.name(out, target)
    w.place(out, span, first, relations[0])
    out.say("and")
    w.place(out, span, second, relations[1])
    return True


def chain(w: Writer, out: Telling) -> bool:
    """A gray cone behind a red cube that is to the left of a ring."""
    three = w.some(3)
    if three is None:
        return False
    relations = [clear_relation(one, other, w.rng) for one, other in pairwise(three)]
    if relations[0] is None or relations[1] is None:
        return False
    middle = w.place(out, w.name(out, three[0]), three[1], relations[0])
    out.say("that is")
    w.place(out, middle, three[2], relations[1])
    return True


def between(w: Writer, out: Telling) -> bool:
    """A purple cylinder with a ring on its left and a cone on its right."""
    three = w.some(3)
    if three is None:
        return False
    first, target, second = sorted(three, key=lambda i: i.side)
    if min(target.side - first.side, second.side - target.side) < CLEAR_ASIDE:
        return False
    span = w.name(out, target)
    for joint, item, relation in (("with", first, "left"), ("and", second, "right")):
        out.say(joint)
        landmark = w.name(out, item)
        words = out.say(f"on its {relation}")
        out.relate(relation, landmark, words, span)
    return True


def ends(w: Writer, out: Telling) -> bool:
    """A red cube on the left and a yellow cone on the right."""
    if len(w.table.items) < 2:
        return False
    items = sorted(w.table.items, key=lambda i: i.side)
    w.name(out, items[0])
    out.say(w.pick(("on the left", "on the left side")))
    out.say("and")
    w.name(out, items[-1])
    out.say(w.pick(("on the right", "on the right side")))
    return True


def several(w: Writer, out: Telling) -> bool:
    """Two red cubes and a large ring on a wooden table."""
    groups: dict[tuple[int, ...], dict[str, str]] = {}
    for kinds in (("shape",), ("color",), ("color", "shape"), ("size", "shape"), ("material", "shape")):
        for item in w.table.items:
            words_ = {kind: getattr(item, kind) for kind in kinds}
            ids = tuple(i.id for i in matching(w.table, words_))
            if len(ids) > 1:
                groups.setdefault(ids, words_)
    if not groups:
        return False
    ids = sorted(groups)[int(w.rng.integers(len(groups)))]
    if w.rng.random() < 0.2:
        out.say("there are")
    out.name(ids, f"{NUMBERS[len(ids)]} {wording(groups[ids], w.rng, many=True)}")
    others = [i for i in w.table.items if i.id not in ids]
    if others and w.rng.random() < 0.7:
        out.say("and")
        w.name(out, others[int(w.rng.integers(len(others)))])
    w.on_table(out)
    return True


def listing(w: Writer, out: Telling) -> bool:
    """A red cube, a blue sphere and a small cylinder on a white table."""
    number = int(w.rng.integers(2, 4))
    items = w.some(min(number, len(w.table.items)))
    if not items:
        return False
    for place, item in enumerate(items):
        words_ = a(distinct(item, w.table, w.rng), w.rng)
        if 0 < place == len(items) - 1:
            out.say("and")
        out.name([item.id], words_, glue=", " if 0 < place < len(items) - 1 else " ")
    w.on_table(out)
    return True


def all_of_them(w: Writer, out: Telling) -> bool:
    """Five objects on a table with a green cone in front."""
    items = w.table.items
    out.name([i.id for i in items], f"{NUMBERS[len(items)]} object{'s' if len(items) > 1 else ''}")
    w.on_table(out)
    side = w.pick(RELATIONS)
    key: Callable[[Item], float] = (lambda i: i.side) if side in ("left", "right") else (lambda i: i.depth)
    found = min(items, key=key) if side in ("left", "front") else max(items, key=key)
    out.say("with")
    w.name(out, found)
    out.say({"front": "in front", "behind": "at the back"}.get(side, f"on the {side}"))
    return True


WAYS: tuple[tuple[Callable[[Writer, Telling], bool], float], ...] = (
    (beside, 5.0),
    (two_places, 2.0),
    (chain, 1.0),
    (between, 1.0),
    (ends, 1.0),
    (several, 3.0),
    (listing, 2.5),
    (all_of_them, 1.0),
)


def _length(text: str) -> int:
    """Words and commas, as spaCy's tokenizer splits these plain texts, without loading it."""
    return len(text.replace(",", " ,").split())


class Captions(Annotator):
    """The annotator of data=tabletop_captions: up to `per_scene` different captions for each scene."""

    shortest, tries = 12, TRIES

    def __init__(self, per_scene: int = 5, max_words: int = 20) -> None:
        super().__init__(per_scene, max_words)

    def of_table(self, table: Table, rng: np.random.Generator) -> list[Telling]:
        """Different captions; fewer than requested only if the table does not allow more."""
        weights = np.array([weight for _, weight in WAYS])
        writer = Writer(table, rng)

        def write() -> Telling | None:
            out = Telling()
            way = WAYS[int(rng.choice(len(WAYS), p=weights / weights.sum()))][0]
            return out if way(writer, out) and _length(out.text) <= self.max_words else None

        return self.different(write)

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the captions of every scene under `corpus_root` to `out` (Examples, one per line)."""
        examples = []
        for number, (image_id, (_, table)) in enumerate(read_tables(corpus_root).items()):
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, 5]))
            examples += numbered(image_id, self.of_table(table, rng))
        if not examples:
            raise AtlasError(f"{corpus_root}: no scene has anything to caption; render the world again")
        write_examples(out, examples)
