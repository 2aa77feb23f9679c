"""Questions as ids: words of the study's own vocabulary, or the sub-words of a published tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from attention_atlas.capture.groups import word_of_tokens
from attention_atlas.errors import AtlasError, loading
from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.language.words import words


@dataclass
class Encoded:
    """ids, token strings and, per token, the index of the spaCy word it belongs to (-1: CLS and SEP)."""

    ids: list[int]
    tokens: list[str]
    word: list[int]


class QuestionText(Protocol):
    def encode(self, text: str, longest: int) -> Encoded:
        """CLS, at most `longest` - 2 tokens, SEP."""
        ...


class WordText:
    """Lower-case spaCy words; the vocabulary's BOS and EOS serve as CLS and SEP."""

    def __init__(self, vocab: Vocabulary) -> None:
        self.vocab = vocab

    def encode(self, text: str, longest: int) -> Encoded:
        found = [word.text.lower() for word in words(text)][: longest - 2]
        ids = [BOS, *self.vocab.encode(found), EOS]
        return Encoded(ids, ["[CLS]", *found, "[SEP]"], [-1, *range(len(found)), -1])


class SubWordText:
    """The tokenizer of the pre-trained model, from the hub or a folder."""

    def __init__(self, where: str) -> None:
        from transformers import AutoTokenizer

        with loading(f"tokenizer: '{where}'"):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(where)

    def encode(self, text: str, longest: int) -> Encoded:
        out = self.tokenizer(text, truncation=True, max_length=longest, return_offsets_mapping=True)
        spans = [(word.start, word.end) for word in words(text)]
        ids = list(out["input_ids"])
        return Encoded(
            ids, self.tokenizer.convert_ids_to_tokens(ids), word_of_tokens(out["offset_mapping"], spans)
        )


def question_text(tokenizer: str | None, vocab: Vocabulary | None) -> QuestionText:
    """The question reader of a run: its tokenizer, else its vocabulary."""
    if tokenizer:
        return SubWordText(tokenizer)
    if vocab is None:
        raise AtlasError("VQA: the run has neither vocabulary nor tokenizer; retrain the model")
    return WordText(vocab)
