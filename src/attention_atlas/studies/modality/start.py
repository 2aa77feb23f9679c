"""Share of attention to START, which precedes all words (paper: about 26 % on average per caption)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Metric, Tally


class StartShare(Metric):
    """Share of attention to START per head: averaged over a caption's rows, then over captions; n = captions.

    Conditions: `all rows`; `without the first row`, which sees only START and always has share 1.
    The row that generates EOS does not count.
    """

    name = "start_share"

    def __init__(self, kinds: Sequence[str] = ("decoder_self",)) -> None:
        self.kinds = tuple(kinds)

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        every = np.flatnonzero(index.query_counts)
        attn_LHQK, seen_QK = index.counted_LHQK("keep"), index.counted_QK("keep")
        for name, rows in (("all rows", every), ("without the first row", every[1:])):
            if not len(rows):
                continue
            start_LHQ = attn_LHQK[:, :, rows][..., index.markers].sum(-1)
            total_LHQ = attn_LHQK[:, :, rows].sum(-1)
            share_LH = (start_LHQ / np.maximum(total_LHQ, 1e-9)).mean(-1)
            seen = seen_QK[rows]
            uniform = float((seen[:, index.markers].sum(1) / seen.sum(1)).mean())
            tally.add(item.image, name, share_LH, np.ones_like(share_LH), 1, (uniform, 1.0))
