"""The base of glove_add and glove_multiply: one vector per string, compared by cosine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from attention_atlas.language.glove import GloveVectors
from attention_atlas.linking.base import Linker, cosine


class GloveLinker(Linker):
    """Composes word vectors into one phrase vector. A string without known words gives NaN.

    `device` is unused: this is a table look-up.
    """

    measure = "cos"

    def __init__(self, name: str, vectors: str, tolerance: float = 1e-6, device: str = "cpu") -> None:
        self.name, self.tolerance = name, tolerance
        self.vectors = GloveVectors(vectors)
        self._composed: dict[str, np.ndarray | None] = {}

    @staticmethod
    @abstractmethod
    def compose(words_ND: np.ndarray) -> np.ndarray:
        """(D,) vector of a phrase from the vectors of its n >= 1 words."""

    def prepare(self, strings: Iterable[str]) -> None:
        new = sorted(set(strings) - set(self._composed))
        self.vectors.prepare(new)
        for text in new:
            words_ND = self.vectors.of_phrase(text)
            self._composed[text] = self.compose(words_ND) if len(words_ND) else None

    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        self.prepare([*phrases, *descriptions])
        known = [v for s in (*phrases, *descriptions) if (v := self._composed[s]) is not None]
        if not known:
            return np.full((len(phrases), len(descriptions)), np.nan)
        return cosine(self._stack(phrases, len(known[0])), self._stack(descriptions, len(known[0])))

    def _stack(self, strings: Sequence[str], dim: int) -> np.ndarray:
        stacked = np.full((len(strings), dim), np.nan)
        for i, text in enumerate(strings):
            vector = self._composed[text]
            if vector is not None:
                stacked[i] = vector
        return stacked
