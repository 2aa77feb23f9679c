"""The n-gram counts of corpus BLEU, from which a bootstrap recomputes it for every resample.

The counts are pycocoevalcap's own; test_text_metrics_bleu.py compares the result with its score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

ORDERS = 4
SMALL, TINY = 1e-9, 1e-15  # pycocoevalcap's guards against division by zero


def bleu_counts(
    references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]
) -> dict[str, list[int]]:
    """Per example (2 + 4 + 4): length, closest reference length, n-grams, matching n-grams.

    Texts are already tokenised, words separated by spaces.
    """
    from pycocoevalcap.bleu.bleu_scorer import cook_refs, cook_test

    counts = {}
    for name in sorted(references):
        found = cook_test(
            hypotheses[name], cook_refs(list(references[name]), n=ORDERS), eff="closest", n=ORDERS
        )
        counts[name] = [found["testlen"], found["reflen"], *found["guess"], *found["correct"]]
    return counts


def corpus_bleu(counts_BC: np.ndarray, order: int) -> np.ndarray:
    """(B,) BLEU-`order` (0..1) from summed counts (B, 10), with brevity penalty (Papineni et al. 2002)."""
    length, closest = counts_BC[:, 0], counts_BC[:, 1]
    guess, correct = counts_BC[:, 2 : 2 + order], counts_BC[:, 2 + ORDERS : 2 + ORDERS + order]
    precision = ((correct + TINY) / (guess + SMALL)).prod(axis=1) ** (1 / order)
    ratio = (length + TINY) / (closest + SMALL)
    penalty = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1)), 1.0)
    return precision * penalty
