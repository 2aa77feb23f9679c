"""Mapping words to ids and back. Ids 0..3 are PAD, BOS, EOS and UNK in every model; words start at 4."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from attention_atlas.errors import AtlasError

PAD, BOS, EOS, UNK = 0, 1, 2, 3
SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")


class Vocabulary:
    """An ordered list of words; `len()` includes the four special ids."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)
        self._ids = {word: i for i, word in enumerate(self.words, start=len(SPECIALS))}
        if len(self._ids) != len(self.words):
            twice = next(w for w, n in Counter(self.words).items() if n > 1)
            raise AtlasError(f"vocabulary: word '{twice}' occurs twice; remove one")

    @classmethod
    def build(cls, texts: Iterable[Sequence[str]], min_count: int = 1) -> Vocabulary:
        """Keep words seen at least `min_count` times, most frequent first, ties in alphabetical order."""
        counts = Counter(word for text in texts for word in text)
        kept = sorted((w for w, n in counts.items() if n >= min_count), key=lambda w: (-counts[w], w))
        if not kept:
            raise AtlasError(
                f"vocabulary: no word occurs {min_count} times in the training texts; lower min_count"
            )
        return cls(kept)

    def __len__(self) -> int:
        return len(SPECIALS) + len(self.words)

    def __contains__(self, word: str) -> bool:
        return word in self._ids

    def encode(self, words: Iterable[str]) -> list[int]:
        """Ids of the words, without BOS and EOS; a word outside the vocabulary becomes UNK."""
        return [self._ids.get(word, UNK) for word in words]

    def decode(self, ids: Iterable[int]) -> list[str]:
        """Words of `ids` up to the first EOS, without PAD and BOS; UNK is shown as '<unk>'."""
        words = []
        for i in ids:
            if i == EOS:
                break
            if i not in (PAD, BOS):
                words.append(SPECIALS[UNK] if i == UNK else self.words[i - len(SPECIALS)])
        return words

    def save(self, path: str | Path) -> None:
        from attention_atlas.files import write_json

        write_json(path, {"schema": "atlas.vocab/1", "words": self.words})

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        from attention_atlas.files import read_json

        path = Path(path)
        value = read_json(path, "train the model (dvc repro) or correct the path")
        if not isinstance(value, dict) or value.get("schema") != "atlas.vocab/1":
            raise AtlasError(f"{path}: schema: is not atlas.vocab/1; retrain the model")
        words = value.get("words")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise AtlasError(f"{path}: words: is not a list of texts; retrain the model")
        return cls(words)
