"""Figure 2: precision and recall of the words that the logit lens decodes from visual tokens, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.means import Sample, mean_rows
from attention_atlas.studies.vlm_phases.dump_file import Dump
from attention_atlas.studies.vlm_phases.logit_lens import (
    caption_words,
    content,
    other_captions,
    precision_recall,
    scheme_of,
    stop_words,
    words_of,
)


@dataclass
class LogitLens:
    """joining: logit_lens.words_of. stop: leave stop words out. shuffles: captions of other images per
    sample for the chance level. switches: unembedding after the final norm (normalised) or without it
    (plain)."""

    joining: str = "join"
    stop: bool = True
    shuffles: int = 5
    switches: tuple[str, ...] = ("normalised", "plain")

    def rows(self, dump: Dump) -> list[dict[str, Any]]:
        """Rows of precision, recall and their sd; layer 0 is the embeddings, layer l the output of layer l.
        Samples whose caption has no word left are not counted."""
        stop = stop_words() if self.stop else frozenset()
        samples = dump.samples("lens")
        if not samples:
            return []
        captions = [caption_words(s["text"], stop) for s in samples]
        kept = [i for i, words in enumerate(captions) if words]
        if not kept:
            raise AtlasError(f"{dump.folder}: logit lens: no caption has a word left; keep stop words")
        captions = [captions[i] for i in kept]
        images = dump.images("lens")[kept]
        other = other_captions(list(images), self.shuffles, dump.seed)
        pieces = dump.about["pieces"]
        scheme = scheme_of(pieces)
        rows: list[dict[str, Any]] = []
        for switch in self.switches:
            ids = dump.read("lens", f"lens_{switch}")
            value = np.empty((len(kept), dump.layers + 1, 2))
            chance = np.empty_like(value)
            for n, i in enumerate(kept):
                for layer, row in enumerate(ids[i]):
                    decoded = content(words_of([pieces[t] for t in row], scheme, self.joining), stop)
                    value[n, layer] = precision_recall(decoded, captions[n], self.joining)
                    lots = [precision_recall(decoded, captions[m], self.joining) for m in other[:, n]]
                    chance[n, layer] = np.mean(lots, axis=0)
            for m, metric in enumerate(("precision", "recall")):
                base = dump.base | {"kind": "lens", "measure": metric, "condition": switch}
                rows += mean_rows(
                    Sample.of(images, seed=dump.seed),
                    value[..., m],
                    base,
                    chance_NC=chance[..., m],
                    layers=range(dump.layers + 1),
                    spread=True,
                )
        return rows
