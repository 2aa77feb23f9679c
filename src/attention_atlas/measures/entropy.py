"""Normalised entropy of a head's attention rows.

Eq. 5 of "Attention as Grounding". The paper divides by "the maximum achievable entropy -log2(O)" while Eq.
5 is written with log, and its colour bars (up to 1.05; 0 to 0.0043) match no single reading. So:

- `normaliser: visible` (default): each row is renormalised over the keys it may see, and its entropy is
  divided by the logarithm, in the same base, of their number: 0 = one key, 1 = uniform. Rows that see one
  key have no entropy to normalise and are skipped.
- `normaliser: paper`: natural entropy divided by log2 of the number O of all keys of the example, as
  captioned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Metric, Tally, check_bos


class Entropy(Metric):
    """Mean normalised entropy over the rows of words (or regions); n = rows. Chance (uniform attention) is 1
    for `visible`. `bos`: drop (exclude markers and renormalise the row) or keep. Excludes the row that
    generates EOS and rows of padding."""

    name = "entropy"

    def __init__(
        self, kinds: Sequence[str] = ("decoder_self", "cross"), bos: str = "drop", normaliser: str = "visible"
    ) -> None:
        if normaliser not in ("visible", "paper"):
            raise AtlasError(f"Entropy: normaliser: '{normaliser}' is not 'visible' or 'paper'")
        self.kinds = tuple(kinds)
        self.bos, self.normaliser = check_bos(bos), normaliser

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        counted_QK = index.counted_QK(self.bos)
        rows = np.flatnonzero(index.query_counts & (counted_QK.sum(axis=1) > 1))
        if not len(rows):
            return
        entropy_LHQ, seen_LHQ = row_entropy(_rows(index.counted_LHQK(self.bos), rows))
        if self.normaliser == "visible":
            maximum_Q = np.log(counted_QK[rows].sum(axis=1))
            uniform = float(len(rows))
        else:
            keys = int(counted_QK.any(axis=0).sum())
            maximum_Q = np.full(len(rows), np.log2(keys))
            uniform = float((np.log(counted_QK[rows].sum(axis=1)) / maximum_Q).sum())
        share_LHQ = entropy_LHQ / maximum_Q
        tally.add(
            item.image,
            self.normaliser,
            share_LHQ.sum(axis=-1),
            seen_LHQ.sum(axis=-1),
            len(rows),
            (uniform, float(len(rows))),
        )


def _rows(attn_LHQK: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The selected rows; a view if they are contiguous, as in most cases."""
    first, last = int(rows[0]), int(rows[-1])
    return attn_LHQK[:, :, first : last + 1] if len(rows) == last - first + 1 else attn_LHQK[:, :, rows]


def row_entropy(counted_LHQK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(L, H, Q) natural entropy of each row renormalised over its keys, and whether it has any mass.

    With p = a / s: -sum p log p = log s - (sum a log a) / s, which needs no normalised copy of the attention.
    """
    total_LHQ = counted_LHQK.sum(axis=-1)
    # The smallest positive number instead of a test for 0: its logarithm is finite, and 0 times it is 0.
    logs_LHQK = np.maximum(counted_LHQK, np.finfo(np.float32).tiny)
    np.log(logs_LHQK, out=logs_LHQK)
    weighted_LHQ = np.einsum("lhqk,lhqk->lhq", logs_LHQK, counted_LHQK)
    seen_LHQ = total_LHQ > 1e-9
    safe_LHQ = np.where(seen_LHQ, total_LHQ, 1)
    entropy_LHQ = np.log(safe_LHQ) - weighted_LHQ / safe_LHQ
    return np.where(seen_LHQ, np.maximum(entropy_LHQ, 0), 0), seen_LHQ
