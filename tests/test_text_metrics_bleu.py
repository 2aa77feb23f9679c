"""Corpus BLEU from counts equals pycocoevalcap's, whole and resampled."""

import numpy as np
import pytest

from attention_atlas.measures.text.bleu import bleu_counts, corpus_bleu

REFERENCES = {
    "a": ["the cat sat on the mat", "a cat is on the mat today"],
    "b": ["there is a red chair near the window"],
    "c": ["two lamps stand on the small table by the bed"],
}
HYPOTHESES = {
    "a": "the cat is on the mat",
    "b": "there is a chair",
    "c": "two lamps stand on the table near the big bed",
}


def published(names: list[str]) -> list[float]:
    from pycocoevalcap.bleu.bleu import Bleu

    gold = {str(i): REFERENCES[n] for i, n in enumerate(names)}
    return Bleu(4).compute_score(gold, {str(i): [HYPOTHESES[n]] for i, n in enumerate(names)}, verbose=0)[0]


@pytest.mark.parametrize("names", [["a", "b", "c"], ["b", "b", "a"], ["c", "b"]])
def test_equals_the_published_implementation(names: list[str]) -> None:
    counts = bleu_counts(REFERENCES, HYPOTHESES)
    summed = np.array([counts[n] for n in names], float).sum(0, keepdims=True)
    got = [float(corpus_bleu(summed, order)[0]) for order in (1, 2, 3, 4)]
    assert got == pytest.approx(published(names), rel=1e-9)


def test_hand_worked() -> None:
    """'there is a chair': 4 of 4 words and 2 of 3 pairs are in the reference of 8 words."""
    counts = bleu_counts({"b": REFERENCES["b"]}, {"b": HYPOTHESES["b"]})["b"]
    assert counts == [4, 8, 4, 3, 2, 1, 4, 2, 1, 0]
    penalty = np.exp(1 - 8 / 4)
    assert corpus_bleu(np.array([counts], float), 2)[0] == pytest.approx(penalty * (1 * 2 / 3) ** 0.5)
