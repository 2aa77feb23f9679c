"""The rule that finds the phases: planted curves, the brute-force definition, stability, chance."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.studies.vlm_phases.phases import NAMES, bootstrap_phases, chance_four, find_phases

PLANTED = np.array([0.0, 0.3, 0.5, 0.45, 0.3, 0.2, 0.5, 0.8, 1.0, 0.9, 0.6])


def test_planted_phases_are_found() -> None:
    found = find_phases(PLANTED)
    assert found.turns_B3[0].tolist() == [2, 5, 8]
    assert found.present_B4[0].all()
    assert found.edges(len(PLANTED)) == list(zip(NAMES, (0, 2, 5, 8), (2, 5, 8, 10)))


@pytest.mark.parametrize(
    ("curve", "names"),
    [
        ([0, 1, 2, 3], ["III"]),
        ([0, 1, 3, 2], ["III", "IV"]),
        ([2, 1, 0, 3], ["II", "III"]),
        ([2, 1, 0, 3, 1], ["II", "III", "IV"]),
        ([0, 2, 1, 3], ["I", "II", "III"]),
        ([3, 2, 1, 0], ["IV"]),
        ([0, 2, 1, 1.01], ["III", "IV"]),  # no second rise to speak of
        ([0, 1, 1.001, 1, 2, 3], ["III"]),  # a dip below 5 % of the range is no phase
        ([0, 3, 2.9, 2, 1], ["III", "IV"]),  # one rise, one fall: the rise is III
        ([1, 1, 1], []),
    ],
)
def test_absent_phases(curve: list[float], names: list[str]) -> None:
    found = find_phases(np.array(curve, dtype=float))
    edges = found.edges(len(curve))
    assert [name.split()[0] for name, _, _ in edges] == names
    for (_, _, end), (_, start, _) in itertools.pairwise(edges):
        assert end == start
    if edges:
        assert edges[0][1] == 0 and edges[-1][2] == len(curve) - 1


def test_turns_maximise_the_total_change() -> None:
    """Against all triples, where every phase is there."""
    rng = np.random.default_rng(0)
    curves = rng.normal(size=(200, 9))
    found = find_phases(curves)
    checked = 0
    for s, turns, there in zip(curves, found.turns_B3, found.present_B4):
        triples = [(a, b, c) for a in range(9) for b in range(a, 9) for c in range(b, 9)]
        best = max(s[a] - s[b] + s[c] for a, b, c in triples)
        if there.all():
            a, b, c = turns
            assert s[a] - s[b] + s[c] == pytest.approx(best)
            checked += 1
    assert checked > 50


def test_a_batch_is_its_curves_one_by_one() -> None:
    curves = np.random.default_rng(1).normal(size=(50, 7)).cumsum(1)
    whole = find_phases(curves)
    for i, curve in enumerate(curves):
        one = find_phases(curve)
        assert (whole.turns_B3[i] == one.turns_B3[0]).all()
        assert (whole.present_B4[i] == one.present_B4[0]).all()


def test_stability_is_high_on_clear_curves_and_low_on_noise() -> None:
    rng = np.random.default_rng(2)
    images = np.arange(60)
    clear = bootstrap_phases(PLANTED + rng.normal(0, 0.05, (60, 11)), images, 300)
    assert clear.phases.turns_B3[0].tolist() == [2, 5, 8]
    assert (clear.near_3 > 0.99).all() and clear.share_4[1] > 0.99
    assert (clear.low_3 <= [2, 5, 8]).all() and (clear.high_3 >= [2, 5, 8]).all()
    noise = bootstrap_phases(rng.normal(0, 1, (60, 11)), images, 300)
    assert noise.near_3.min() < 0.9


def test_chance_says_how_little_four_intervals_mean() -> None:
    rising = np.linspace(0, 1, 8)
    assert chance_four(rising) == 0  # equal steps up, in any order, make one rise
    assert 0.05 < chance_four(PLANTED) < 0.9


def test_bad_curves_are_refused() -> None:
    with pytest.raises(AtlasError, match="at least two layers"):
        find_phases(np.array([1.0]))
    with pytest.raises(AtlasError, match="finite"):
        find_phases(np.array([1.0, np.nan, 2.0]))
