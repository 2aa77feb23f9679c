"""One example, indexed once for all metrics: the words of its rows, the words or regions of its keys.

Axes: W words of the text, Q query rows, K keys, P spans (phrases or relations), N regions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import Parse

# Roles of positions that are not words or regions of the example.
MARKERS = ("bos", "eos", "special")
Span = tuple[int, int]


@dataclass(frozen=True)
class Link:
    """A noun phrase [start, end) in words and the regions linked to it (never empty)."""

    start: int
    end: int
    regions: tuple[int, ...]


@dataclass
class KindIndex:
    """The mapping from rows and keys of one attention kind to the words and regions of one example.

    attn_LHQK float32: the attention. query_word (Q,) and key_word (K,): word of each row and key, -1 for none
    (for regions: -1). A row belongs to the word it generates. query_counts (Q,), keys (K,) bool: neither
    padding nor marker. markers (K,) bool. visible_QK bool: keys that the mask lets a row see (without
    padding, with markers). query_logprob (Q,): log probability of each generated token, None if not stored.
    """

    kind: str
    attn_LHQK: np.ndarray
    query_word: np.ndarray
    key_word: np.ndarray
    query_counts: np.ndarray
    keys: np.ndarray
    markers: np.ndarray
    visible_QK: np.ndarray
    words: int
    query_logprob: np.ndarray | None = None

    @cached_property
    def rows_WQ(self) -> np.ndarray:
        """(W, Q) weights that average the rows of a word's pieces (1 where words are tokens)."""
        rows = np.zeros((self.words, len(self.query_word)), dtype=np.float32)
        at = np.flatnonzero(self.query_counts & (self.query_word >= 0))
        rows[self.query_word[at], at] = 1
        pieces = rows.sum(axis=1, keepdims=True)
        return np.divide(rows, pieces, out=rows, where=pieces > 0)

    @cached_property
    def keys_WK(self) -> np.ndarray:
        """(W, K) 0/1 to sum the attention on the pieces of each word."""
        keys = np.zeros((self.words, len(self.key_word)), dtype=np.float32)
        at = np.flatnonzero(self.keys & (self.key_word >= 0))
        keys[self.key_word[at], at] = 1
        return keys

    @cached_property
    def logprob_W(self) -> np.ndarray | None:
        """(W,) log probability of each word, the sum over its pieces; NaN for a word without rows or with a
        piece without a probability. None if the store has no probabilities."""
        if self.query_logprob is None:
            return None
        at = np.flatnonzero(self.query_counts & (self.query_word >= 0))
        total_W = np.full(self.words, np.nan)
        total_W[self.query_word[at]] = 0
        np.add.at(total_W, self.query_word[at], self.query_logprob[at])
        return total_W

    def counted_QK(self, bos: str) -> np.ndarray:
        """(Q, K) bool: visible keys that count in the denominator. `bos` drop: words and regions only; keep:
        also markers (BOS, EOS, special tokens)."""
        return self.visible_QK if bos == "keep" else self.visible_QK & self.keys

    def counted_LHQK(self, bos: str) -> np.ndarray:
        """The attention with 0 at all keys that do not count. Shared by all metrics: do not modify."""
        if bos not in self._counted:
            counted_QK = self.counted_QK(bos)
            whole = bool(counted_QK.all())
            self._counted[bos] = self.attn_LHQK if whole else self.attn_LHQK * counted_QK
        return self._counted[bos]

    @cached_property
    def _counted(self) -> dict[str, np.ndarray]:
        return {}

    def target_PQ(self, spans: Sequence[Span]) -> np.ndarray:
        """(P, Q) row weights of word spans [start, end)."""
        return span_matrix(spans, self.words) @ self.rows_WQ

    def source_PK(self, spans: Sequence[Span]) -> np.ndarray:
        """(P, K) 0/1 of word spans [start, end) among the keys."""
        return span_matrix(spans, self.words) @ self.keys_WK


@dataclass
class Item:
    """One example, as metrics use it. `image`: index of the image within the store (row of the bootstrap);
    areas_N: pixel area of each valid region, or None without a features file; gold: phrases with the regions
    that show what they refer to, or None where that is not known."""

    id: str
    image: int
    parse: Parse
    links: Sequence[Link] = ()
    areas_N: np.ndarray | None = None
    kinds: Mapping[str, KindIndex] = field(default_factory=dict)
    gold: Sequence[Link] | None = None

    @property
    def words(self) -> int:
        return len(self.parse.tokens)

    def link_of(self, span: Span) -> Link | None:
        """The link of a word span: the phrase with the same words, else the one with the same head word (of
        several, the one closest in length). None if the phrase was not linked."""
        exact = [link for link in self.links if (link.start, link.end) == tuple(span)]
        if exact:
            return exact[0]
        root = self.root(span)
        same = [link for link in self.links if self.root((link.start, link.end)) == root]
        length = span[1] - span[0]
        return min(same, key=lambda link: (abs(link.end - link.start - length), link.start), default=None)

    def root(self, span: Span) -> int:
        """The head word of a span: the first whose head is outside the span (or is itself)."""
        start, end = span
        for i in range(start, end):
            head = self.parse.tokens[i].head
            if head == i or not start <= head < end:
                return i
        return end - 1

    def regions_PK(self, links: Sequence[Link], keys: int) -> np.ndarray:
        """(P, K) 0/1: regions of each link among the keys of cross-attention (key k is region k)."""
        out = np.zeros((len(links), keys), dtype=np.float32)
        for p, link in enumerate(links):
            if max(link.regions) >= keys:
                raise AtlasError(
                    f"links: example '{self.id}': regions: {max(link.regions)} but attention has {keys} "
                    "regions; link and dump with the same features.h5"
                )
            out[p, list(link.regions)] = 1
        return out


def span_matrix(spans: Sequence[Span], words: int) -> np.ndarray:
    """(P, W) 0/1 membership of words in spans [start, end)."""
    out = np.zeros((len(spans), words), dtype=np.float32)
    for p, (start, end) in enumerate(spans):
        out[p, start:end] = 1
    return out


def proportion(
    counted_LHQK: np.ndarray, target_PQ: np.ndarray, source_PK: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator of Eq. 3 of "Attention as Grounding", each (L, H, P).

    `counted_LHQK`: attention with 0 at keys that do not count. num = sum over the span's rows and the
    source's keys; den = sum over the span's rows and all keys. Their ratio is the share of the generated
    span's attention on the source.
    """
    # Reduce the rows to P spans first: one matrix product for all heads.
    spread_LHPK = np.matmul(target_PQ, counted_LHQK)
    return np.einsum("lhpk,pk->lhp", spread_LHPK, source_PK), spread_LHPK.sum(axis=-1)
