"""A word-level view of an attention store, independent of the model's tokenizer, to compare metrics of
models."""

from __future__ import annotations

from typing import Any

import numpy as np

from attention_atlas.language.subwords import to_words
from attention_atlas.measures.distribution import check_weights
from attention_atlas.recording.axis import Axis


class WordStore:
    """Wraps an AttentionStore: `ids`, `kinds`, `attrs`, `read`, `axis`, with one position per word.

    Attention is summed over a word's pieces as source and averaged over its pieces as target. A later piece
    of a word also attends to the word's own earlier pieces, which is impossible in a word-level model: that
    mass is set to 0, like everything that a word-level mask hides (`own` returns its amount); metrics that
    renormalise are not affected. A store of a word-level model is passed through unchanged.
    """

    whole_rows = False  # attention of a row to its own word is removed

    def __init__(self, store: Any) -> None:
        self.store = store
        self.ids, self.kinds, self.attrs = store.ids, store.kinds, store.attrs

    def axis(self, id: str, axis: str) -> Axis:
        return word_axis(self.store.axis(id, axis))[0]

    def read(self, id: str, kind: str) -> np.ndarray:
        """(L,H,T,S) float32: rows the words of the query axis, keys those of the key axis, markers kept.

        Raises AtlasError if the stored rows are not distributions."""
        attn_LHQK = np.asarray(self.store.read(id, kind), dtype=np.float32)
        axes = [self.store.axis(id, name) for name in self.kinds[kind]]
        where = f"attention store: example '{id}': {kind}"
        check_weights(attn_LHQK, where, rows_Q=np.asarray(axes[0].roles) != "pad")
        (query, rows_Q), (key, keys_K) = map(word_axis, axes)
        if len(query) == attn_LHQK.shape[2] and len(key) == attn_LHQK.shape[3]:
            return attn_LHQK
        merged = to_words(attn_LHQK, rows_Q, keys_K, len(query), len(key))
        return merged * own_hidden(query, key)

    def own(self, id: str, kind: str) -> float:
        """Mean share of a row that went to earlier pieces of the word being generated (0 for words)."""
        (query, rows_Q), (key, keys_K) = (word_axis(self.store.axis(id, name)) for name in self.kinds[kind])
        if len(query) == len(rows_Q) and len(key) == len(keys_K):
            return 0.0
        attn_LHQK = np.asarray(self.store.read(id, kind), dtype=np.float32)
        merged = to_words(attn_LHQK, rows_Q, keys_K, len(query), len(key))
        return float((merged * ~own_hidden(query, key)).sum(-1).mean())

    def close(self) -> None:
        self.store.close()


def word_axis(axis: Axis) -> tuple[Axis, list[int]]:
    """The axis with one position per word (and per marker), and the new position of each old one (−1: none).

    Regions are unchanged; white space (role special without a word) is dropped.
    """
    tokens: list[str] = []
    roles: list[str] = []
    word: list[int] = []
    new: list[int] = []
    for token, role, owner in zip(axis.tokens, axis.roles, axis.word):
        if role == "special" and owner < 0:
            new.append(-1)
            continue
        if role == "text" and owner >= 0 and word and word[-1] == owner:
            tokens[-1] += token
        else:
            tokens.append(token)
            roles.append(role)
            word.append(int(owner))
        new.append(len(tokens) - 1)
    return Axis(tokens, roles, word), new


def own_hidden(query: Axis, key: Axis) -> np.ndarray:
    """(T,S) bool, False where a row would see its own word or a later one."""
    query_T, key_S = np.asarray(query.word), np.asarray(key.word)
    known = (query_T[:, None] >= 0) & (key_S >= 0)
    return ~(known & (key_S >= query_T[:, None]))
