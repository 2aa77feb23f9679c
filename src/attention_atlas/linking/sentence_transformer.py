"""Sentence Transformer (Reimers and Gurevych 2019): one pooled vector per string, compared by cosine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from attention_atlas.devices import resolve_device
from attention_atlas.errors import AtlasError, first_line
from attention_atlas.language.weights import resolve_weights
from attention_atlas.linking.base import Linker, cosine


class SentenceTransformerLinker(Linker):
    """Cosine of sentence embeddings. `model` is `package:NAME/FOLDER`, a path or a hub id."""

    measure = "cos"

    def __init__(
        self, name: str, model: str, batch: int = 64, device: str = "auto", tolerance: float = 1e-6
    ) -> None:
        self.name, self.tolerance = name, tolerance
        self.batch, self.device = batch, device
        self.path = resolve_weights(model, "SentenceTransformerLinker: model")
        self._model: Any = None
        self._vectors: dict[str, np.ndarray] = {}

    def prepare(self, strings: Iterable[str]) -> None:
        new = sorted(set(strings) - set(self._vectors), key=lambda s: (len(s), s))
        if not new:
            return
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            try:
                self._model = SentenceTransformer(self.path, device=resolve_device(self.device, "link"))
            except (OSError, ValueError) as error:  # ValueError: a folder without a tokenizer or model type
                reason = first_line(error)
                raise AtlasError(
                    f"SentenceTransformerLinker: model: '{self.path}' cannot be loaded ({reason}); "
                    "give a folder or hub id"
                ) from None
        vectors = self._model.encode(new, batch_size=self.batch, show_progress_bar=False)
        self._vectors.update(zip(new, np.asarray(vectors, "float64"), strict=True))

    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        self.prepare([*phrases, *descriptions])
        if not phrases or not descriptions:
            return np.zeros((len(phrases), len(descriptions)))
        vectors = [np.stack([self._vector(s) for s in strings]) for strings in (phrases, descriptions)]
        return cosine(*vectors)

    def _vector(self, text: str) -> np.ndarray:
        """NaN for a text without words, such as an unnamed region; the model would return a vector."""
        vector = self._vectors[text]
        return vector if any(c.isalnum() for c in text) else np.full_like(vector, np.nan)
