"""Word vector files: the text format of GloVe and FastText, and FastText's binary models."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError, reading


def read_vectors(path: Path, wanted: Collection[str]) -> dict[str, np.ndarray]:
    """The vectors (D,) float64 of the `wanted` words that occur in a text file.

    A line is "word v1 ... vD". A first line of two whole numbers, as in FastText's .vec files, is the header.
    Raises AtlasError for a line whose length differs from the lines before it.
    """
    wanted = set(wanted)
    found: dict[str, np.ndarray] = {}
    size = None
    remedy = "download the file again or correct the path"
    if not path.is_file():
        raise AtlasError(f"{path}: no such file; {remedy}")
    with reading(path, remedy), path.open(encoding="utf-8", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            word, _, rest = line.rstrip("\n").partition(" ")
            if word not in wanted or (number == 1 and word.isdigit() and rest.strip().isdigit()):
                continue
            try:
                vector = np.array([float(x) for x in rest.split()])
            except ValueError:
                vector = np.zeros(0)
            if size is None:
                size = len(vector)
            if len(vector) != size or size == 0:
                raise AtlasError(
                    f"{path}: line {number}: '{word}' does not have {size} numbers like the lines "
                    "before; download the file again"
                )
            found[word] = vector
    return found


class FastText:
    """FastText vectors (Bojanowski et al. 2017) from a `.vec` text file or a `.bin` model.

    A `.bin` model also computes vectors of unseen words from their character n-grams, as in M4C; gensim loads
    it into memory completely. A `.vec` file has no n-grams: unknown words get zeros. `field` is the name used
    in error messages.
    """

    def __init__(self, path: str | Path, field: str = "fasttext") -> None:
        self.path = Path(path)
        if self.path.suffix not in (".vec", ".bin"):
            raise AtlasError(
                f"{field}: '{path}' is neither a .vec nor a .bin file; give one of FastText's files"
            )
        if not self.path.exists():
            raise AtlasError(
                f"{field}: {path}: no such file; run 'make paper-check' to see where it comes from"
            )

    def __call__(self, words: Sequence[str]) -> np.ndarray:
        """(len(words), D) float32. Raises AtlasError if a .vec file contains none of them."""
        if self.path.suffix == ".bin":
            model = _binary_model(self.path)
            return np.stack([model.get_vector(word) for word in words]).astype(np.float32)
        found = read_vectors(self.path, words)
        if not found:
            raise AtlasError(
                f"{self.path}: has none of the {len(words)} words; give vectors of this language"
            )
        none = np.zeros(len(next(iter(found.values()))))
        return np.stack([found.get(word, none) for word in words]).astype(np.float32)


@lru_cache(maxsize=1)  # several gigabytes, and requested once per split
def _binary_model(path: Path) -> Any:
    try:
        from gensim.models.fasttext import load_facebook_vectors
    except ImportError:
        raise AtlasError(
            f"{path}: reading .bin files needs gensim: pip install 'attention-atlas[text-metrics]', "
            "or give the .vec file"
        ) from None
    try:
        return load_facebook_vectors(str(path))
    except Exception as error:  # gensim raises various exceptions for a damaged file
        first = (str(error).splitlines() or ["damaged"])[0]
        raise AtlasError(f"{path}: not a FastText model ({first}); download the file again") from None
