"""CIDEr-D as a reward: document frequencies are counted once over a split, then single captions are scored.

pycocoevalcap's own scorer recounts document frequencies over the captions that it gets. Self-critical
training needs those of the training split for every small batch (Rennie et al. 2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError


class CiderReward:
    """references: texts (tokens joined by spaces) by image."""

    def __init__(self, references: Mapping[str, Sequence[str]]) -> None:
        from pycocoevalcap.cider.cider_scorer import CiderScorer

        if len(references) < 2:
            raise AtlasError("CIDEr reward: needs at least 2 images; their number sets the word weights")
        self._class = CiderScorer
        whole = CiderScorer(n=4, sigma=6.0)
        for image in sorted(references):
            whole += (None, list(references[image]))
        whole.compute_doc_freq()
        self._cooked = dict(zip(sorted(references), whole.crefs))
        self._frequency = whole.document_frequency
        # compute_cider takes the number of images from the number of references.
        self._images = len(references)

    def __call__(self, images: Sequence[str], captions: Sequence[str]) -> np.ndarray:
        """(B,) CIDEr-D of each caption against its image's references; 10 for a caption equal to its only
        reference."""
        scorer: Any = self._class(n=4, sigma=6.0)
        scorer.document_frequency = self._frequency
        for image, caption in zip(images, captions, strict=True):
            scorer.cook_append(caption, [])
            scorer.crefs[-1] = self._cooked[image]
        scorer.crefs = _Padded(scorer.crefs, self._images)
        return np.array(scorer.compute_cider())


class _Padded(list):
    """A list whose `len` is that of the whole split, which the scorer uses as the number of documents; `zip`
    still ends with the captions."""

    def __init__(self, items: Sequence[Any], length: int) -> None:
        super().__init__(items)
        self._length = length

    def __len__(self) -> int:
        return self._length
