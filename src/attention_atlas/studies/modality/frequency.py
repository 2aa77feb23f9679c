"""Does attention follow the frequency of nouns? ("How Vision Affects Language", §5: r = 0.49, p = 0.056 in
the captioner; r = 0.60, p = 0.014 in the text-only model.)

The paper does not define the unit of the correlation. Both of its p values fit n = 16, the longest caption,
so probably positions. `unit` chooses:

- positions: for each position in the caption, how many captions have a noun there, against the share of all
  attention that goes to that position;
- words: for each noun, how often it occurs, against the attention that one occurrence receives per
  generated word after it (the total would grow with frequency anyway).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import LEAST_IMAGES, contributing, interval, pearson, pearson_p
from attention_atlas.measures.item import Item
from attention_atlas.measures.metric import Metric, Tally

UNITS = ("positions", "words")


class NounFrequency(Metric):
    """Pearson r between noun frequency and attention (mean over heads), with a bootstrap interval over images
    and its p (statistic p); condition = unit, n = positions or nouns.

    `units`: positions, words or both. `least`: minimum occurrences of a noun in `words`.
    """

    name = "noun_frequency"

    def __init__(
        self, units: Sequence[str] = UNITS, kinds: Sequence[str] = ("decoder_self",), least: int = 2
    ) -> None:
        for unit in units:
            if unit not in UNITS:
                raise AtlasError(f"metric noun_frequency: units: '{unit}' is not one of {', '.join(UNITS)}")
        self.units, self.kinds, self.least = tuple(units), tuple(kinds), least

    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        index = item.kinds[kind]
        rows = np.flatnonzero(index.query_counts)
        attn_QK = index.counted_LHQK("drop")[:, :, rows].mean(axis=(0, 1))
        received_W = index.keys_WK @ attn_QK.sum(0)
        # Generated words that can attend to one occurrence.
        readers_W = index.keys_WK @ index.counted_QK("drop")[rows].sum(0).astype(float)
        nouns = [t.pos == "NOUN" for t in item.parse.tokens]
        seen: list[Any] = vars(tally).setdefault("seen", [])
        for w, noun in enumerate(nouns):
            text = item.parse.tokens[w].text.lower()
            seen.append((item.image, w, text if noun else "", float(received_W[w]), float(readers_W[w])))

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        seen = vars(tally).get("seen", [])
        found: list[dict[str, Any]] = []
        for unit in self.units:
            tables = (
                _positions(seen, attention.images)
                if unit == "positions"
                else self._words(seen, attention.images)
            )
            if tables is None:
                continue
            value = _correlate(*(t.sum(0)[None] for t in tables))[0]
            resampled = _correlate(*(attention.counts_BI @ t for t in tables))
            if contributing(np.asarray(tables[0].any(axis=1))) < LEAST_IMAGES:
                resampled[:] = np.nan
            low, high = interval(resampled)
            n = tables[0].shape[1]
            base = {"kind": kind, "measure": self.name, "condition": unit, "n": n}
            limits = {"ci_low": float(low), "ci_high": float(high)}
            found.append(base | limits | {"value": float(value), "chance": 0.0})
            found.append(base | {"statistic": "p", "value": pearson_p(float(value), n)})
        return found

    def _words(self, seen: list[Any], images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
        counts: dict[str, int] = {}
        for _, _, noun, _, readers in seen:
            if noun and readers:
                counts[noun] = counts.get(noun, 0) + 1
        names = sorted(noun for noun, count in counts.items() if count >= self.least)
        if len(names) < 3:
            return None
        column = {noun: i for i, noun in enumerate(names)}
        return _tables(
            ((i, column[n], 1, a, r) for i, _, n, a, r in seen if n in column and r), images, len(names)
        )


def _positions(seen: list[Any], images: int) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    longest = max((w for _, w, *_ in seen), default=-1) + 1
    if longest < 3:
        return None
    tables = _tables(((i, w, bool(n), a, 0.0) for i, w, n, a, _ in seen), images, longest)
    # The share of all attention: the denominator is the same for each position.
    tables[2][:] = tables[1].sum(1, keepdims=True)
    return tables


def _tables(rows: Any, images: int, columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(I, X) sums per image: frequency, attention received, denominator."""
    tables = tuple(np.zeros((images, columns)) for _ in range(3))
    for image, column, *values in rows:
        for table, value in zip(tables, values):
            table[image, column] += value
    return tables  # type: ignore[return-value]


def _correlate(frequency_BX: np.ndarray, attention_BX: np.ndarray, readers_BX: np.ndarray) -> np.ndarray:
    """(B,) r over X. Columns missing from a resample count as 0 in both."""
    rate_BX = np.divide(attention_BX, readers_BX, out=np.zeros_like(attention_BX), where=readers_BX > 0)
    return pearson(frequency_BX, rate_BX)
