"""Links known from a rendered world or from a file: the upper bound for text-based linkers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.linking.base import LinkContext, Linker
from attention_atlas.linking.gold_file import gold_of_context, gold_spans, read_gold_csv


class GoldLinker(Linker):
    """1 where a region shows an object of the phrase, NaN elsewhere.

    `file`: a gold file (gold_file.py), in which examples may be missing; None: the gold phrases of a rendered
    world (`features.gold`). A phrase without a detected object gets no link. `device` is unused.
    """

    measure = "gold"

    def __init__(
        self, name: str = "gold", tolerance: float = 0.0, file: str | None = None, device: str = "cpu"
    ) -> None:
        self.name, self.tolerance = name, tolerance
        self.spans = read_gold_csv(file) if file else None

    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        raise AtlasError("linker gold: words alone have no gold; call similarity_in with the example")

    def similarity_in(self, context: LinkContext) -> np.ndarray:
        if self.spans is not None:
            spans = self.spans.get(context.parse.id, [])
        elif context.example is not None and context.example.phrases:
            spans = gold_spans(context.example.phrases)
        else:
            raise AtlasError(
                f"linker gold: example '{context.parse.id}' has no gold phrases; "
                "choose another linker, or give linker.file, a gold file of your own (docs/linking.md)"
            )
        similarity_PN = np.full((len(context.phrases), context.regions.count), np.nan)
        for similarity_N, gold in zip(similarity_PN, gold_of_context(context, context.phrases, spans)):
            similarity_N[sorted(gold.regions)] = 1.0
        return similarity_PN
