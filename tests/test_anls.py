"""ANLS by hand (Biten et al. 2019, eq. 1)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_atlas.errors import AtlasError
from attention_atlas.measures.text.anls import anls

TEXT = st.text(alphabet="ab ", min_size=1, max_size=6).filter(str.strip)


def distance(a: str, b: str) -> int:
    """Edit distance by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(distance(a[1:], b) + 1, distance(a, b[1:]) + 1, distance(a[1:], b[1:]) + (a[0] != b[0]))


def test_hand_worked():
    # kitten -> sitting: 3 operations, 7 letters.
    assert anls("kitten", ["sitting"]) == pytest.approx(1 - 3 / 7)
    assert anls("kitten", ["sitting", " Kitten "]) == 1.0
    assert anls("tea", ["coffee"]) == 0.0
    assert anls("", ["coffee"]) == 0.0


def test_a_similarity_at_the_threshold_counts_and_one_below_is_nothing():
    assert anls("ab", ["ac"]) == 0.5
    assert anls("abc", ["ade"]) == 0.0
    assert anls("abc", ["ade"], threshold=0.3) == pytest.approx(1 / 3)


@settings(deadline=None, max_examples=60)
@given(TEXT, TEXT)
def test_equals_the_recursion(a, b):
    a, b = " ".join(a.split()), " ".join(b.split())
    expected = 1 - distance(a, b) / max(len(a), len(b))
    assert anls(a, [b]) == pytest.approx(expected if expected >= 0.5 else 0.0)


def test_without_answers_is_an_error():
    with pytest.raises(AtlasError, match="no human answers"):
        anls("a", [])
