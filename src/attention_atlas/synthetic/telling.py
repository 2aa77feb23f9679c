"""A text under construction, and random choices of a writer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Example, Phrase, Relation, Span
from attention_atlas.errors import ConfigError


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


class Annotator:
    """Writes at most `per_scene` different captions for each scene, of at most `max_words` words."""

    shortest: int  # minimum of max_words
    tries: int

    def __init__(self, per_scene: int, max_words: int) -> None:
        if per_scene < 1 or max_words < self.shortest:
            raise ConfigError(
                f"Captions: per_scene must be at least 1 and max_words at least {self.shortest}"
            )
        self.per_scene, self.max_words = per_scene, max_words

    def different(self, write: Callable[[], Any]) -> list[Any]:
        """Different captions (Telling) from `write`, which may also return None."""
        found: dict[str, Any] = {}
        for _ in range(self.tries):
            new = write()
            if new is not None:
                found.setdefault(new.text, new)
            if len(found) == self.per_scene:
                break
        return list(found.values())


def numbered(image_id: str, captions: Sequence[Telling]) -> list[Example]:
    """The captions of one image as examples."""
    return [
        Example(f"{image_id}.c{n}", image_id, c.text, c.phrases, c.relations) for n, c in enumerate(captions)
    ]


def article(word: str) -> str:
    """'a' or 'an' before a word.

    >>> article("armchair"), article("sofa")
    ('an', 'a')
    """
    return "an" if word[:1] in "aeiou" else "a"
