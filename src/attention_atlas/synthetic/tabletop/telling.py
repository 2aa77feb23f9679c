"""A text under construction, with its phrases and relations, and the names of shapes."""

from __future__ import annotations

import numpy as np

from attention_atlas.data.corpus import Relation, Span
from attention_atlas.synthetic import telling
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES
from attention_atlas.synthetic.tabletop.table import Item, Table
from attention_atlas.synthetic.telling import article

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
# Synonyms; the first is the world's own name.
ALSO: dict[str, tuple[str, ...]] = {
    "sphere": ("sphere", "sphere", "ball"),
    "cube": ("cube", "cube", "block"),
    "large": ("large", "large", "big"),
    "small": ("small", "small", "little"),
}
SIDE_WORDS: dict[str, tuple[str, ...]] = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "front": ("in front of",),
    "behind": ("behind",),
}
ADJECTIVES = tuple(ATTRIBUTES)[:3]
COLOR_NAMED, ONE_MORE = (
    0.75,
    0.15,
)  # chances of attributes that are not needed to tell a shape from the others


class Telling(telling.Telling):
    """Text so far."""

    def relate(self, relation: str, target: Span, words: Span, landmark: Span) -> None:
        """Record a relation between the phrases at `target` and `landmark`."""
        means = {(p.start, p.end): p.objects for p in self.phrases}
        self.relations.append(
            Relation(target, words, landmark, "direction", list(means[target]), list(means[landmark]))
        )


def matching(table: Table, words: dict[str, str]) -> list[Item]:
    """The shapes that have all these attributes (kind -> word); all shapes if there are none."""
    return [i for i in table.items if all(getattr(i, kind) == word for kind, word in words.items())]


def distinct(item: Item, table: Table, rng: np.random.Generator) -> dict[str, str]:
    """Attributes that identify this shape: its shape, usually its colour, as few others as a random order
    needs, and occasionally one more. No two shapes agree in all four, so they always suffice."""
    chosen = {"shape": item.shape}
    if rng.random() < COLOR_NAMED:
        chosen["color"] = item.color
    order = [str(kind) for kind in rng.permutation(ADJECTIVES) if kind not in chosen]
    while order and (len(matching(table, chosen)) > 1 or rng.random() < ONE_MORE):
        kind = order.pop(0)
        chosen[kind] = getattr(item, kind)
    return chosen


def wording(words: dict[str, str], rng: np.random.Generator | None = None, many: bool = False) -> str:
    """Adjectives and noun: "small red cube", "cubes". With `rng`, sometimes a synonym."""

    def synonym(word: str) -> str:
        if rng is None or word not in ALSO:
            return word
        return str(rng.choice(ALSO[word]))

    pieces = [synonym(words[kind]) for kind in ADJECTIVES if kind in words]
    noun = synonym(words["shape"]) if "shape" in words else "object"
    return " ".join([*pieces, noun + ("s" if many else "")])


def a(words: dict[str, str], rng: np.random.Generator | None = None) -> str:
    """With its article: "an orange cone"."""
    phrase = wording(words, rng)
    return f"{article(phrase)} {phrase}"
