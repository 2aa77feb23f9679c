"""Official VQA accuracy, and ViLT's soft targets.

Accuracy (Antol et al. 2015, section 4; Goyal et al. 2017): an answer that at least three of nine
people gave is fully right; averaged over the ten ways of leaving one person out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attention_atlas.errors import AtlasError
from attention_atlas.measures.vqa_normalise import clean, normalise


def vqa_accuracy(answer: str, people: Sequence[str]) -> float:
    """Mean over the people of min(others who gave `answer` / 3, 1), 0..1.

    As in the published evaluation, answers are normalised only if the human answers are not all equal. Raises
    AtlasError without human answers.
    """
    if not people:
        raise AtlasError("VQA accuracy: no human answers; the question needs the answers of ten people")
    given, truth = clean(answer), [clean(p) for p in people]
    if len(set(truth)) > 1:
        given, truth = normalise(given), [normalise(p) for p in truth]
    same = [p == given for p in truth]
    total = sum(same)
    return sum(min((total - s) / 3, 1.0) for s in same) / len(same)


def soft_score(count: int) -> float:
    """Target of an answer that `count` of ten people gave: 0, 0.3, 0.6, 0.9, then 1 (as ViLT).

    Examples:
        >>> [soft_score(n) for n in range(6)]
        [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]
    """
    return min(round(0.3 * count, 1), 1.0)


def soft_targets(people: Sequence[str], index: Mapping[str, int]) -> dict[int, float]:
    """{answer's index: target} for the normalised human answers that are in the answer list."""
    counts = Counter(normalise(p) for p in people)
    return {index[a]: soft_score(n) for a, n in sorted(counts.items()) if a in index}


def consensus(people: Sequence[str]) -> str:
    """The most frequent normalised human answer; on a tie the alphabetically first."""
    if not people:
        raise AtlasError("VQA answers: no human answers; the question needs the answers of ten people")
    counts = Counter(normalise(p) for p in people)
    return min(counts, key=lambda a: (-counts[a], a))


def answer_list(examples: Sequence[Sequence[str]], min_count: int = 1, size: int | None = None) -> list[str]:
    """A model's answer list: consensus answers of at least `min_count` questions, most frequent first, at
    most `size` (ViLT: 3,129 answers that occur at least nine times)."""
    counts = Counter(consensus(people) for people in examples)
    kept = sorted((a for a, n in counts.items() if n >= min_count), key=lambda a: (-counts[a], a))[:size]
    if not kept:
        raise AtlasError(f"VQA answers: no answer occurs {min_count} times in training; lower min_count")
    return kept
