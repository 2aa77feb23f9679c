"""Links known from a rendered world: the upper bound for text-based linkers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.linking.align import gold_objects
from attention_atlas.linking.base import LinkContext, Linker


class GoldLinker(Linker):
    """1 where a region shows an object of the phrase (`features.gold`), NaN elsewhere.

    A phrase without a detected object gets no link. Needs a corpus with gold phrases. `device` is unused.
    """

    measure = "gold"

    def __init__(self, name: str = "gold", tolerance: float = 0.0, device: str = "cpu") -> None:
        self.name, self.tolerance = name, tolerance

    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        raise AtlasError("linker gold: words alone have no gold; call similarity_in with the example")

    def similarity_in(self, context: LinkContext) -> np.ndarray:
        if context.example is None or not context.example.phrases:
            raise AtlasError(
                f"linker gold: example '{context.parse.id}' has no gold phrases; "
                "choose another linker, or a data set with gold"
            )
        objects = gold_objects(context.parse, context.phrases, context.example.phrases)
        region_objects = context.regions.gold[: context.regions.count]
        similarity = np.full((len(context.phrases), context.regions.count), np.nan)
        for i, found in enumerate(objects):
            if found:
                similarity[i, np.isin(region_objects, sorted(found))] = 1.0
        return similarity
