"""GloVe word vectors (Pennington et al. 2014), loaded only for the words that occur."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.language.weights import resolve_weights
from attention_atlas.language.word_vectors import read_vectors
from attention_atlas.language.words import words


class GloveVectors:
    """Word -> vector (D,) float64.

    `where` is a folder with one `*_emb.npy` (words x D) and one `*_index.parquet` (column `index`: the
    words), a GloVe text file ("word v1 v2 ..." per line), or `package:NAME/FOLDER`.
    """

    def __init__(self, where: str) -> None:
        self.path = Path(resolve_weights(where, "GloveVectors"))
        self._known: dict[str, np.ndarray | None] = {}
        self._rows: dict[str, int] | None = None
        self._matrix: np.ndarray | None = None
        self._lock = threading.Lock()

    def load(self, wanted: Iterable[str]) -> None:
        """Look up the words. Reads a text file once per call, so pass all words at once."""
        with self._lock:
            new = sorted(set(wanted) - set(self._known))
            if not new:
                return
            found = self._from_folder(new) if self.path.is_dir() else read_vectors(self.path, new)
            for word in new:
                self._known[word] = found.get(word)

    def get(self, word: str) -> np.ndarray | None:
        """The vector of a lower-case word, None if it is not in GloVe."""
        if word not in self._known:
            self.load([word])
        return self._known[word]

    def of_phrase(self, text: str) -> np.ndarray:
        """(n, D) vectors of the known words of a phrase, in order.

        Lower-cases words and drops punctuation. A word that is not in GloVe is split at hyphens
        ("L-shaped" -> "l", "shaped"), or else dropped. n may be 0.
        """
        vectors = []
        for word in _content(text):
            vector = self.get(word)
            if vector is not None:
                vectors.append(vector)
            else:
                vectors += [v for part in word.split("-") if part and (v := self.get(part)) is not None]
        return np.stack(vectors) if vectors else np.zeros((0, 0))

    def prepare(self, texts: Iterable[str]) -> None:
        wanted = {w for text in texts for w in _content(text)}
        self.load(wanted | {p for w in wanted for p in w.split("-") if p})

    def _from_folder(self, wanted: list[str]) -> dict[str, np.ndarray]:
        if self._rows is None or self._matrix is None:
            import pandas as pd

            matrices, indices = (
                sorted(self.path.glob("*_emb.npy")),
                sorted(self.path.glob("*_index.parquet")),
            )
            if len(matrices) != 1 or len(indices) != 1:
                raise AtlasError(
                    f"{self.path}: expected one *_emb.npy and one *_index.parquet, found {len(matrices)} "
                    f"and {len(indices)}; give the folder of a GloVe package or a GloVe text file"
                )
            self._matrix = np.load(matrices[0], mmap_mode="r")
            self._rows = {w: i for i, w in enumerate(pd.read_parquet(indices[0])["index"])}
            if len(self._rows) != len(self._matrix):
                raise AtlasError(
                    f"{self.path}: {len(self._rows)} words but {len(self._matrix)} vectors; "
                    "reinstall the package"
                )
        return {w: np.asarray(self._matrix[self._rows[w]], "float64") for w in wanted if w in self._rows}


def _content(text: str) -> list[str]:
    return [w.text.lower() for w in words(text) if any(c.isalnum() for c in w.text)]
