"""PHOC, the pyramidal histogram of characters (Almazán et al. 2014): a word's spelling as a vector.

M4C (Hu et al. 2020) uses it for every OCR word, so that words unseen in training are represented by their
letters. 604 numbers: letters and digits in 2, 3, 4 and 5 parts of the word, fifty bigrams in 2 parts.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

SYMBOLS = "abcdefghijklmnopqrstuvwxyz0123456789"
LEVELS = (2, 3, 4, 5)
BIGRAMS = (
    *("th", "he", "in", "er", "an", "re", "es", "on", "st", "nt", "en", "at", "ed", "nd", "to", "or", "ea"),
    *("ti", "ar", "te", "ng", "al", "it", "as", "is", "ha", "et", "se", "ou", "of", "le", "sa", "ve", "ro"),
    *("ra", "ri", "hi", "ne", "me", "de", "co", "ta", "ec", "si", "ll", "so", "na", "li", "la", "el"),
)
BIGRAM_LEVEL = 2
SIZE = len(SYMBOLS) * sum(LEVELS) + len(BIGRAMS) * BIGRAM_LEVEL
HALF = 0.5


@lru_cache(maxsize=1 << 16)
def phoc(word: str) -> np.ndarray:
    """(604,) float32 of 0 and 1, read-only. Ignores characters other than a-z and 0-9.

    Character k of n occupies [k/n, (k+1)/n] of the word, a bigram [k/n, (k+2)/n]. It belongs to a part that
    contains at least half of it.
    """
    kept = [c for c in word.lower() if c in SYMBOLS]
    out = np.zeros(SIZE, dtype=np.float32)
    start = 0
    for parts in LEVELS:
        for k, character in enumerate(kept):
            for part in _parts(k, 1, len(kept), parts):
                out[start + part * len(SYMBOLS) + SYMBOLS.index(character)] = 1
        start += parts * len(SYMBOLS)
    for k in range(len(kept) - 1):
        pair = kept[k] + kept[k + 1]
        if pair in BIGRAMS:
            for part in _parts(k, 2, len(kept), BIGRAM_LEVEL):
                out[start + part * len(BIGRAMS) + BIGRAMS.index(pair)] = 1
    out.setflags(write=False)
    return out


def _parts(first: int, wide: int, length: int, parts: int) -> list[int]:
    """Parts of the word that contain at least half of the characters first..first+wide of `length`."""
    low, high = first * parts, (first + wide) * parts  # in units of 1 / (length · parts)
    return [
        p
        for p in range(parts)
        if min(high, (p + 1) * length) - max(low, p * length) >= HALF * (high - low) - 1e-9
    ]
