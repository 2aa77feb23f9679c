"""Logit lens on visual tokens (nostalgebraist 2021; Wei et al. 2025, section 2): which words do the hidden
states at the image's positions encode, layer by layer, and are they words of the caption?

A state is decoded to the token of the largest logit. Details that the paper leaves open are options here:

joining     join (default): a token that begins a word, and the tokens that continue it at the next
            positions, make one word; a piece without a beginning is a fragment. whole: every token is a
            separate word, pieces are fragments. prefix: as join, and a beginning of at least three letters
            also counts as the caption's word that begins with it.
stop words  left out on both sides (spaCy's English list), as are marks, digits and special tokens.
precision   correct decoded words / decoded words (fragments count as decoded: they are words of no caption).
recall      caption words that were decoded / caption words, each distinct word once.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

JOININGS = ("join", "whole", "prefix")
FRAGMENT = "\0"  # a piece without a beginning: a word of no caption
SHORTEST = 3  # minimum letters of a beginning that counts as its word
_STARTS = ("▁", "Ġ")


def decode(hidden_ND: Tensor, unembed: Callable[[Tensor], Tensor], block: int = 1024) -> Tensor:
    """Token id (N,) of the largest logit of each state, in blocks, so that (N, vocabulary) is never
    materialised."""
    import torch

    if not len(hidden_ND):
        return torch.empty(0, dtype=torch.long)
    parts = [unembed(hidden_ND[at : at + block]).argmax(-1).cpu() for at in range(0, len(hidden_ND), block)]
    return torch.cat(parts)


def scheme_of(pieces: Sequence[str]) -> str:
    """How a vocabulary marks words: '▁' or 'Ġ' before a beginning, '##' before a continuation, or 'word'
    (every token is a whole word)."""
    for mark in _STARTS:
        if sum(p.startswith(mark) and len(p) > 1 for p in pieces) > 0.05 * len(pieces):
            return mark
    return "##" if any(p.startswith("##") and len(p) > 2 for p in pieces) else "word"


def readable(pieces: Sequence[str]) -> list[str]:
    """The pieces of a byte-level vocabulary as text, with 'Ġ' before a beginning; those that hold part of a
    character, and those of other vocabularies, are unchanged."""
    if scheme_of(pieces) != "Ġ":
        return list(pieces)
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    byte_of = {char: byte for byte, char in bytes_to_unicode().items()}

    def text(piece: str) -> str:
        marked = piece.startswith("Ġ")
        try:
            return "Ġ" * marked + bytes(byte_of[c] for c in piece[marked:]).decode()
        except (KeyError, UnicodeDecodeError):
            return piece

    return [text(piece) for piece in pieces]


def words_of(tokens: Sequence[str], scheme: str, joining: str = "join") -> list[str]:
    """Words, lower-case, that the tokens at consecutive positions make; '\\0' for a fragment. Tokens without
    a letter and special tokens ('<s>', '[CLS]', '<0x0A>') are not words and end the preceding word."""
    if joining not in JOININGS:
        raise ConfigError(
            f"conf/metrics: lens: joining: '{joining}' is unknown{did_you_mean(joining, JOININGS)}"
        )
    out: list[str] = []
    open_word = False  # the last word may continue
    for token in tokens:
        text, begins = _piece(token, scheme)
        if not text:
            open_word = False
        elif begins:
            out.append(text)
            open_word = scheme != "word"
        elif open_word and joining != "whole":
            out[-1] += text
        else:
            out.append(FRAGMENT)
            open_word = False
    return out


@functools.cache
def _piece(token: str, scheme: str) -> tuple[str, bool]:
    """(letters, whether it begins a word); ('', False) for a token that is not a word."""
    if len(token) > 2 and token[0] + token[-1] in ("<>", "[]"):
        return "", False
    if scheme == "##":
        begins, text = not token.startswith("##"), token.removeprefix("##")
    elif scheme in _STARTS:
        begins, text = token.startswith(scheme), token.removeprefix(scheme)
    else:
        begins, text = True, token
    text = text.lower()
    return (text, begins) if any(c.isalpha() for c in text) else ("", False)


@functools.cache
def stop_words() -> frozenset[str]:
    from spacy.lang.en.stop_words import STOP_WORDS

    return frozenset(STOP_WORDS)


def caption_words(text: str, stop: frozenset[str]) -> frozenset[str]:
    """Distinct words of a caption, lower-case, with a letter, without stop words."""
    from attention_atlas.language.words import words

    found = (word.text.lower() for word in words(text))
    return frozenset(w for w in found if any(c.isalpha() for c in w) and w not in stop)


def content(words: Sequence[str], stop: frozenset[str]) -> Counter[str]:
    """How often each decoded word occurs, without stop words."""
    return Counter(w for w in words if w not in stop)


def precision_recall(
    decoded: Mapping[str, int], caption: frozenset[str], joining: str = "join"
) -> tuple[float, float]:
    """(precision, recall) of one sample and layer. If nothing is decoded, precision is NaN and recall 0.
    Raises AtlasError for a caption without words to find."""
    if not caption:
        raise AtlasError("logit lens: a caption has no word to find; keep stop words or drop the sample")
    match = _prefix if joining == "prefix" else _same
    found: set[str] = set()
    correct = 0
    for word, times in decoded.items():
        hits = match(word, caption)
        if hits:
            correct += times
            found |= hits
    total = sum(decoded.values())
    return (correct / total if total else float("nan")), len(found) / len(caption)


def _same(word: str, caption: frozenset[str]) -> set[str]:
    return {word} if word in caption else set()


def _prefix(word: str, caption: frozenset[str]) -> set[str]:
    if word in caption:
        return {word}
    return {w for w in caption if w.startswith(word)} if len(word) >= SHORTEST else set()


def other_captions(image_of: Sequence[str], repeats: int, seed: int) -> np.ndarray:
    """(R,N) index of another sample, of another image, whose caption each sample is scored with for the
    chance level. Raises AtlasError if all samples are of one image."""
    images = np.unique(np.asarray(image_of, dtype=str), return_inverse=True)[1]
    if not len(images) or images.max() == 0:
        raise AtlasError("logit lens: chance needs captions of at least two images; take more samples")
    rng = np.random.default_rng([seed, 17])
    out = np.empty((repeats, len(images)), dtype=np.int64)
    for row in out:
        row[:] = rng.integers(len(images), size=len(images))
        while (same := images[row] == images).any():
            row[same] = rng.integers(len(images), size=int(same.sum()))
    return out
