"""ANLS, the average normalised Levenshtein similarity of scene-text answers (Biten et al. 2019, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence

from attention_atlas.errors import AtlasError

THRESHOLD = 0.5  # a lower similarity means a wrong answer rather than a reading error


def anls(answer: str, people: Sequence[str], threshold: float = THRESHOLD) -> float:
    """The maximum of 1 - distance / longer length over the human answers, 0 if below the threshold. Ignores
    case and outer white space. Raises AtlasError without human answers.

    >>> anls("Coffee", ["coffee"]), anls("cofee", ["coffee"]) == 1 - 1 / 6, anls("tea", ["coffee"])
    (1.0, True, 0.0)
    """
    from rapidfuzz.distance import Levenshtein

    if not people:
        raise AtlasError("ANLS: no human answers; the question needs the answers of people")
    given = _tidy(answer)
    best = max(Levenshtein.normalized_similarity(given, _tidy(p)) for p in people)
    return float(best) if best >= threshold else 0.0


def _tidy(text: str) -> str:
    return " ".join(text.lower().split())
