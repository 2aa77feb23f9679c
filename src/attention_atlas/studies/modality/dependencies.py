"""Attention along syntactic dependencies ("How Vision Affects Language", Figs. 3 and 4).

For det, compound and nummod: from the head to the dependent before it ("man" → "a"). For pobj and prep:
from the dependent to the head before it ("table" → "on", "with" → "bathroom"). The arrow reads generated →
attended, so the attended word must come earlier; other pairs are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Key, Metric, Tally, check_bos

DIRECTIONS = ("to dependent", "to head")
NOMINAL, VERBAL = ("NOUN", "PROPN"), ("VERB", "AUX")
HEADS = {"NOUN": NOMINAL, "VERB": VERBAL}


class Dependencies(Metric):
    """Share of the generated word's attention to words that goes to its partner; n = pairs.

    `relations`: dependency -> "to dependent" or "to head". `by_head`: dependencies also split by the head's
    part of speech, groups NOUN and VERB (Fig. 4). A ratio of sums over pairs, as the
    paper's Eq. 3; `average: pairs` gives each pair the same weight. `bos`: drop or keep.
    """

    name = "dependency"

    def __init__(
        self,
        relations: Mapping[str, str],
        by_head: Sequence[str] = (),
        kinds: Sequence[str] = ("decoder_self",),
        average: str = "sums",
        bos: str = "drop",
    ) -> None:
        for name, direction in relations.items():
            if direction not in DIRECTIONS:
                raise AtlasError(
                    f"metric dependency: relations.{name}: '{direction}' is not one of "
                    f"{', '.join(DIRECTIONS)}; correct the YAML"
                )
        unknown = [name for name in by_head if name not in relations]
        if unknown:
            raise AtlasError(f"metric dependency: by_head: '{unknown[0]}' is not among `relations`")
        if average not in ("sums", "pairs"):
            raise AtlasError(f"metric dependency: average: '{average}' is not 'sums' or 'pairs'")
        self.relations = {str(k): str(v) for k, v in relations.items()}
        self.by_head, self.kinds = tuple(by_head), tuple(kinds)
        self.average, self.bos = average, check_bos(bos)

    def pairs(self, item: Item) -> dict[Key, list[tuple[int, int]]]:
        """Key -> (generated word, attended word), in text order."""
        found: dict[Key, list[tuple[int, int]]] = {Key(name): [] for name in self.relations}
        found |= {Key(name, pos): [] for name in self.by_head for pos in HEADS}
        for i, token in enumerate(item.parse.tokens):
            direction = self.relations.get(token.dep)
            if direction is None or token.head == i:
                continue
            pair = (token.head, i) if direction == "to dependent" else (i, token.head)
            if pair[1] >= pair[0]:
                continue
            found[Key(token.dep)].append(pair)
            if token.dep in self.by_head:
                for name, tags in HEADS.items():
                    if item.parse.tokens[token.head].pos in tags:
                        found[Key(token.dep, name)].append(pair)
        return found

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        attn_LHQK, counted_QK = index.counted_LHQK(self.bos), index.counted_QK(self.bos)
        for key, pairs in self.pairs(item).items():
            # Words beyond the model's maximum text length have no row.
            kept = [(t, s) for t, s in pairs if index.rows_WQ[t].any() and index.keys_WK[s].any()]
            if not kept:
                continue
            targets, sources = np.array(kept).T
            row_LHPK = index.rows_WQ[targets] @ attn_LHQK
            num_LHP = np.einsum("lhpk,pk->lhp", row_LHPK, index.keys_WK[sources])
            den_LHP = row_LHPK.sum(-1)
            seen_PK = index.rows_WQ[targets] @ counted_QK.astype(np.float32)
            uniform_P = (seen_PK * index.keys_WK[sources]).sum(1) / seen_PK.sum(1)
            if self.average == "pairs":
                valid_LHP = den_LHP > 1e-9
                num_LHP = np.divide(num_LHP, den_LHP, out=np.zeros_like(num_LHP), where=valid_LHP)
                den_LHP = valid_LHP.astype(np.float64)
            chance = (float(uniform_P.sum()), float(len(kept)))
            tally.add(item.image, key, num_LHP.sum(-1), den_LHP.sum(-1), len(kept), chance)
