"""Attention between the parts of a spatial relation, in text and through the linked regions.

Eq. 3 of "Attention as Grounding" over target-relation-landmark triples, the eight panels of Figure 6. The
arrow reads generated -> attended. The proportions are averaged over the relations ("normalised by the
number of spatial relations").

| masked self-attention (words)        | cross-attention (linked regions) |
|---|---|
| a: relation -> target                | e: relation -> target            |
| b: landmark -> relation              | f: relation -> landmark          |
| c: landmark -> target                | g: landmark -> target            |
| d: landmark -> target + relation     | h: target -> landmark            |
"""

from __future__ import annotations

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import SpatialRelation
from attention_atlas.measures.item import Item, KindIndex, proportion, span_matrix
from attention_atlas.measures.metric import Key, Metric, Tally, check_bos
from attention_atlas.studies.grounding.grounding import add_proportions, baseline_proportion

# condition -> (generated part, attended parts)
TEXT = {
    "a rel→target": ("relation", ("target",)),
    "b land→rel": ("landmark", ("relation",)),
    "c land→target": ("landmark", ("target",)),
    "d land→target+rel": ("landmark", ("target", "relation")),
}
REGIONS = {
    "e rel→target": ("relation", "target"),
    "f rel→land": ("relation", "landmark"),
    "g land→target": ("landmark", "target"),
    "h target→land": ("target", "landmark"),
}


class Relations(Metric):
    """Mean proportion over relations for the directions a-h; n = relations counted.

    `text_kind`, `region_kind`: attention kinds of the two rows of Figure 6. `order`: treatment of a triple
    whose attended part, in the text, is not entirely before the generated one: skip (default) or zero (count
    the attention it gets); the paper does not specify it. `types`: keep only these relation types (region,
    direction, distance); all if empty. A landmark or target without a linked region is left out of e-h.
    `bos`: drop or keep.
    """

    name = "relations"

    def __init__(
        self,
        text_kind: str = "decoder_self",
        region_kind: str = "cross",
        order: str = "skip",
        types: tuple[str, ...] = (),
        bos: str = "drop",
    ) -> None:
        if order not in ("skip", "zero"):
            raise AtlasError(f"metric relations: order: '{order}' is not 'skip' or 'zero'; correct the YAML")
        self.text_kind, self.region_kind = text_kind, region_kind
        self.kinds = (text_kind, region_kind)
        self.order, self.types, self.bos = order, tuple(types), check_bos(bos)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        relations = [r for r in item.parse.relations if not self.types or r.type in self.types]
        if kind == self.text_kind:
            for condition, (generated, attended) in TEXT.items():
                self._text(item, item.kinds[kind], tally, relations, condition, generated, attended)
        if kind == self.region_kind:
            for condition, (generated, attended_part) in REGIONS.items():
                self._regions(item, item.kinds[kind], tally, relations, condition, generated, attended_part)

    def _text(
        self,
        item: Item,
        index: KindIndex,
        tally: Tally,
        relations: list[SpatialRelation],
        condition: str,
        generated: str,
        attended: tuple[str, ...],
    ) -> None:
        if self.order == "skip":
            relations = [
                r
                for r in relations
                if all(getattr(r, part)[1] <= getattr(r, generated)[0] for part in attended)
            ]
        if not relations:
            return
        source_PW = np.zeros((len(relations), item.words), dtype=np.float32)
        for part in attended:
            # A word that belongs to both parts counts once.
            source_PW = np.maximum(source_PW, span_matrix([getattr(r, part) for r in relations], item.words))
        target_PQ = index.target_PQ([getattr(r, generated) for r in relations])
        self._add(item, index, tally, condition, target_PQ, source_PW @ index.keys_WK)

    def _regions(
        self,
        item: Item,
        index: KindIndex,
        tally: Tally,
        relations: list[SpatialRelation],
        condition: str,
        generated: str,
        attended: str,
    ) -> None:
        pairs = [(getattr(r, generated), item.link_of(getattr(r, attended))) for r in relations]
        found = [(span, link) for span, link in pairs if link is not None]
        if not found:
            return
        target_PQ = index.target_PQ([span for span, _ in found])
        source_PK = item.regions_PK([link for _, link in found], len(index.keys))
        self._add(item, index, tally, condition, target_PQ, source_PK)

    def _add(
        self,
        item: Item,
        index: KindIndex,
        tally: Tally,
        condition: str,
        target_PQ: np.ndarray,
        source_PK: np.ndarray,
    ) -> None:
        counted_QK = index.counted_QK(self.bos)
        sums = proportion(index.counted_LHQK(self.bos), target_PQ, source_PK)
        uniform = baseline_proportion(np.ones(len(index.keys)), target_PQ, source_PK, counted_QK)
        add_proportions(tally, item.image, condition, *sums, uniform)

    def keys(self, tally: Tally) -> list[Key]:
        return sorted(tally.sums)
