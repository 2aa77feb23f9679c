"""GloVe Multiply: element-wise product of the word vectors (Mitchell and Lapata 2008, eq. 7)."""

from __future__ import annotations

import numpy as np

from attention_atlas.linking.composition import GloveLinker


class GloveMultiplyLinker(GloveLinker):
    """Cosine of products, ignoring words that are not in GloVe."""

    @staticmethod
    def compose(words_ND: np.ndarray) -> np.ndarray:
        return words_ND.prod(axis=0)
