"""GloVe Add: sum of the word vectors (Mitchell and Lapata 2008, eq. 5)."""

from __future__ import annotations

import numpy as np

from attention_atlas.linking.composition import GloveLinker


class GloveAddLinker(GloveLinker):
    """Cosine of sums, ignoring words that are not in GloVe."""

    @staticmethod
    def compose(words_ND: np.ndarray) -> np.ndarray:
        return words_ND.sum(axis=0)
