"""Recall at K against hand-worked cases and a loop over all random orders of ties."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.measures.retrieval import chance, hits, recalls, relevance


def by_permutations(similarity_N, relevant_N, k):
    """Share of the orders that break ties at random and have a relevant candidate among the first k."""
    found = []
    for order in permutations(range(len(similarity_N))):
        ranked = sorted(order, key=lambda n: -similarity_N[n])
        found.append(any(relevant_N[n] for n in ranked[:k]))
    return np.mean(found)


def test_by_hand():
    # Two images, captions 0, 1 of the first and 2 of the second.
    similarity = np.array([[0.9, 0.1, 0.95], [0.2, 0.3, 0.1]])
    numbers, found = recalls(similarity, [0, 0, 1], (1, 2))
    # Image 0 ranks caption 2 first, its own second; image 1 ranks its own last.
    assert found["sentence"].tolist() == [[0, 1], [0, 0]]
    # Captions 0 finds its image first, caption 1 second, caption 2 second.
    assert found["image"].tolist() == [[1, 1], [0, 1], [0, 1]]
    assert numbers["R@1 sentence"] == 0 and numbers["R@2 sentence"] == 50
    assert numbers["R@1 image"] == pytest.approx(100 / 3) and numbers["R@2 image"] == 100
    assert numbers["Rsum"] == pytest.approx(0 + 50 + 100 / 3 + 100)
    # Chance at 1: 2 of 3 and 1 of 3 captions; 1 of 2 images.
    assert numbers["R@1 sentence chance"] == pytest.approx(50) and numbers["R@1 image chance"] == 50
    assert numbers["R@2 sentence chance"] == pytest.approx(100 * (1 + 2 / 3) / 2)


@pytest.mark.parametrize("seed", range(6))
def test_ties_are_broken_at_random(seed):
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, 3, (4, 6)).astype(float)
    relevant = rng.random((4, 6)) < 0.4
    relevant[:, seed % 6] = True
    ks = (1, 2, 3, 5, 6, 9)
    found = hits(similarity, relevant, ks)
    for q in range(4):
        for i, k in enumerate(ks):
            assert found[q, i] == pytest.approx(by_permutations(similarity[q], relevant[q], k))


def test_a_model_that_knows_nothing_is_at_chance():
    image_of = np.repeat(np.arange(20), 5)
    numbers, _ = recalls(np.zeros((20, 100)), image_of)
    for name in ("R@1 sentence", "R@5 image", "R@10 sentence", "Rsum"):
        assert numbers[name] == pytest.approx(numbers[f"{name} chance"])
    rng = np.random.default_rng(0)
    drawn = np.mean([recalls(rng.random((20, 100)), image_of)[0]["R@10 sentence"] for _ in range(500)])
    assert drawn == pytest.approx(numbers["R@10 sentence chance"], abs=1.5)


def test_chance_by_hand_and_for_the_usual_sizes():
    assert chance(4, 2, 1) == pytest.approx(0.5) and chance(4, 2, 2) == pytest.approx(1 - 1 / 6)
    assert chance(5, 1, 10) == 1 and chance(5, 1, 5) == pytest.approx(1)
    assert chance(250, 1, 10) == pytest.approx(0.04)
    assert chance(1250, 5, 10) == pytest.approx(0.0394, abs=2e-4)


def test_captions_of_an_image_need_not_stand_together():
    assert relevance([1, 0, 1], 2).tolist() == [[False, True, False], [True, False, True]]
    rng = np.random.default_rng(1)
    similarity, image_of = rng.random((5, 15)), np.repeat(np.arange(5), 3)
    order = rng.permutation(15)
    assert recalls(similarity, image_of)[0] == recalls(similarity[:, order], image_of[order])[0]


def test_bad_input_is_one_line():
    for similarity, relevant, message in (
        (np.zeros((2, 3)), np.ones((3, 2)), r"\(2, 3\).*\(3, 2\)"),
        (np.full((1, 2), np.nan), np.ones((1, 2)), "not finite"),
        (np.zeros((2, 2)), np.array([[1, 0], [0, 0]]), "query 1 has no relevant"),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            hits(similarity, relevant, (1,))
        assert "\n" not in str(error.value)
