"""The word tokenizer of the project: spaCy's English rules, which need no model.

Models, parses and attention rows all use these words, so that model token i, parsed token i and
attention row i are the same word.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spacy.tokenizer import Tokenizer


@dataclass(frozen=True)
class Word:
    """A word and its position: `text == source[start:end]`, offsets in characters."""

    text: str
    start: int
    end: int


def words(text: str) -> list[Word]:
    """Split `text` into words and punctuation marks, without white space.

    spaCy keeps a run of two or more spaces, or a line break, as a separate token; these are dropped here and,
    in the same way, in every parse.
    """
    return [Word(t.text, t.idx, t.idx + len(t.text)) for t in _tokenizer()(text) if not t.is_space]


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer:
    import spacy

    return spacy.blank("en").tokenizer
