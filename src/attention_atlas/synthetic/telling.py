"""A text under construction, and random choices of a writer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Phrase, Relation, Span


class Telling:
    """The text so far, with its phrases and relations by character spans."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[Phrase] = []
        self.relations: list[Relation] = []

    def say(self, piece: str, glue: str = " ") -> Span:
        """Add words and return their character span. Commas and stops follow the previous word directly."""
        if piece:
            self.text += ("" if not self.text or piece.startswith((",", ".")) else glue) + piece
        return len(self.text) - len(piece), len(self.text)

    def name(self, things: Sequence[Any], piece: str, glue: str = " ") -> Span:
        """Add a noun phrase for these things (ids, or objects with an `id`)."""
        span, ids = self.say(piece, glue), [getattr(t, "id", t) for t in things]
        self.phrases.append(Phrase(*span, ids, "group" if len(ids) > 1 else "object" if ids else "miss"))
        return span


class Chooser:
    """A writer with a random generator."""

    rng: np.random.Generator

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)


def article(word: str) -> str:
    """'a' or 'an' before a word.

    >>> article("armchair"), article("sofa")
    ('an', 'a')
    """
    return "an" if word[:1] in "aeiou" else "a"
