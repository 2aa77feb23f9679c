"""CIDEr over the references that have a hypothesis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attention_atlas.errors import AtlasError


def cider(
    references: Mapping[str, Sequence[str]], hypotheses: Mapping[str, str]
) -> tuple[float, dict[str, float]]:
    """Mean and per-example CIDEr-D (Vedantam et al. 2015; the standard implementation, σ = 6, n = 1..4).

    Texts are tokenised, words joined by spaces. Document frequencies are counted over all `references`;
    `hypotheses` may cover only a part. A hypothesis equal to its single reference scores 10 (the
    implementation multiplies by 10). Raises AtlasError for a hypothesis without a reference.
    """
    from pycocoevalcap.cider.cider_scorer import CiderScorer

    unknown = sorted(set(hypotheses) - set(references))
    if unknown:
        raise AtlasError(f"hypotheses: '{unknown[0]}' has no reference; generate for the same split")
    if not hypotheses:
        raise AtlasError("hypotheses: there are none; generate captions first")
    scorer = CiderScorer(n=4, sigma=6.0)
    ids = sorted(references)
    for i in ids:
        scorer += (hypotheses.get(i, ""), list(references[i]))
    _, scores = scorer.compute_score()
    every = dict(zip(ids, (float(s) for s in scores)))
    kept = {i: every[i] for i in ids if i in hypotheses}
    return sum(kept.values()) / len(kept), kept
