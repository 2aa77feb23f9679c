"""From similarities to links: ties, unknown words, the order of regions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_atlas.errors import AtlasError
from attention_atlas.linking.base import cosine, link

NAN = float("nan")


def test_ties_within_the_tolerance_link_several() -> None:
    similarity = np.array([[0.5, 0.9, 0.9, 0.1], [0.3, 0.2, 0.3 + 5e-7, 0.3 - 2e-6], [0.1, 0.2, 0.3, 0.4]])
    assert link(similarity, 1e-6) == [[1, 2], [0, 2], [3]]
    assert link(similarity, 0.0) == [[1, 2], [2], [3]]


def test_nan_never_links() -> None:
    assert link(np.array([[NAN, -0.5, NAN], [NAN, NAN, NAN]]), 1e-6) == [[1], []]
    assert link(np.zeros((2, 0)), 0.0) == [[], []]
    assert link(np.zeros((0, 3)), 0.0) == []


def test_wrong_arguments() -> None:
    with pytest.raises(AtlasError, match="1 axes; give phrases x regions"):
        link(np.zeros(3), 0.0)
    with pytest.raises(AtlasError, match="tolerance: -1 is negative"):
        link(np.zeros((1, 1)), -1)


values = st.lists(st.one_of(st.just(NAN), st.floats(-1, 1)), min_size=1, max_size=8)


@given(values, st.floats(0, 0.5))
def test_against_a_plain_loop(row: list[float], tolerance: float) -> None:
    known = [v for v in row if v == v]
    expected = [i for i, v in enumerate(row) if v == v and v >= max(known) - tolerance]
    assert link(np.array([row]), tolerance) == [expected]


def test_cosine() -> None:
    found = cosine(np.array([[3.0, 4.0], [0.0, 0.0]]), np.array([[6.0, 8.0], [4.0, -3.0], [1.0, 0.0]]))
    assert found[0] == pytest.approx([1.0, 0.0, 0.6]) and np.isnan(found[1]).all()
