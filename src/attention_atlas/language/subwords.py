"""Sub-words: a byte-level BPE trained here or loaded, and aggregation of attention from pieces to words.

Attention is summed over the source pieces of a word (a word receives what its pieces receive) and averaged
over its target pieces (each piece is generated from one distribution). Pieces are assigned to words by
character offsets, never by comparing strings, so repeated words stay separate.

Axes: L layers, H heads, Q rows, K keys, T target words, S source words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError, first_line, loading
from attention_atlas.language.words import Word, words

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"  # GPT-2's only special token: it starts and ends every text
SCHEMA = "atlas.subwords/1"
Span = tuple[int, int]


class Subwords:
    """A byte-level BPE with the interface of Vocabulary: `len`, `save`, `load`. `end` is the id of
    END_OF_TEXT."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        end = tokenizer.token_to_id(END_OF_TEXT)
        if end is None:
            raise AtlasError(f"tokenizer: has no '{END_OF_TEXT}'; give a GPT-2 tokenizer")
        self.tokenizer = tokenizer
        self.end = int(end)

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> Subwords:
        """Learn merges from `texts` up to `size` pieces (256 bytes and the marker included)."""
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        if size < 257:
            raise AtlasError(f"Subwords: pieces: {size} is less than 257 (the bytes and the marker)")
        tokenizer = Tokenizer(models.BPE())
        # As GPT-2: words carry their leading space, and offsets do not include it.
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return cls(tokenizer)

    @classmethod
    def pretrained(cls, name: str) -> Subwords:
        """The tokenizer of a hub id or of a folder with tokenizer.json."""
        from transformers import AutoTokenizer

        with loading(f"tokenizer '{name}'"):
            fast = AutoTokenizer.from_pretrained(name)
        return cls(fast.backend_tokenizer)

    def __len__(self) -> int:
        return int(self.tokenizer.get_vocab_size())

    def encode(self, text: str) -> tuple[list[int], list[str], list[Span]]:
        """Ids, the pieces as they appear in the text, and their character offsets; without the marker."""
        coded = self.tokenizer.encode(text, add_special_tokens=False)
        spans = [(int(start), int(end)) for start, end in coded.offsets]
        return list(coded.ids), [text[slice(*trimmed(text, *span))] for span in spans], spans

    def save(self, path: str | Path) -> None:
        from attention_atlas.files import write_json

        write_json(path, {"schema": SCHEMA, "tokenizer": json.loads(self.tokenizer.to_str())})

    @classmethod
    def load(cls, path: str | Path) -> Subwords:
        from tokenizers import Tokenizer

        from attention_atlas.files import read_json

        path = Path(path)
        value: Any = read_json(path, "train the model (dvc repro) or correct the path")
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise AtlasError(f"{path}: schema: is not {SCHEMA}; retrain the model")
        try:
            return cls(Tokenizer.from_str(json.dumps(value.get("tokenizer"))))
        except Exception as error:  # tokenizers raises plain Exceptions
            raise AtlasError(f"{path}: tokenizer: {first_line(error)}; retrain the model") from None


def trimmed(text: str, start: int, end: int) -> Span:
    """The offsets without surrounding white space (GPT-2's pieces include the space before a word)."""
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def piece_words(text: str, offsets: Sequence[Span], found: Sequence[Word] | None = None) -> list[int]:
    """The index of the word (in `words(text)`) of each piece, −1 for none.

    A piece across two words belongs to the one with which it shares most characters (the first on a tie):
    GPT-2 splits "don't" into "don" and "'t", spaCy into "do" and "n't", so "don" goes to "do". A multi-byte
    character may be split into pieces with the same offsets; each belongs to the character's word. A piece
    that is only the space before a word belongs to that word, as in GPT-2's longer pieces; other white space
    belongs to none.
    """
    found = words(text) if found is None else found
    starts = {word.start: i for i, word in enumerate(found)}
    result = []
    for left, right in offsets:
        start, end = trimmed(text, left, right)
        if start == end:
            result.append(starts.get(right, -1))
            continue
        best, most = -1, 0
        for i, word in enumerate(found):
            shared = min(end, word.end) - max(start, word.start)
            if shared > most:
                best, most = i, shared
        result.append(best)
    return result


def to_words(
    attn_LHQK: np.ndarray, row_of_Q: Sequence[int], key_of_K: Sequence[int], rows: int, keys: int
) -> np.ndarray:
    """(L, H, rows, keys): summed over the keys of each group, averaged over the rows of each group.

    row_of_Q, key_of_K: the group each row and key belongs to, −1 for none. A group without rows is all zero.
    """
    if attn_LHQK.shape[2:] != (len(row_of_Q), len(key_of_K)):
        raise AtlasError(
            f"sub-words: attention {attn_LHQK.shape} does not match {len(row_of_Q)} rows and "
            f"{len(key_of_K)} keys; give one group per row and key"
        )
    key_KS = (np.asarray(key_of_K)[:, None] == np.arange(keys)).astype(np.float32)
    row_TQ = (np.arange(rows)[:, None] == np.asarray(row_of_Q)).astype(np.float32)
    row_TQ /= np.maximum(row_TQ.sum(1, keepdims=True), 1)
    return row_TQ @ (attn_LHQK.astype(np.float32) @ key_KS)
