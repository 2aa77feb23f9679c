"""Intervals, tests and correlations against enumerations, textbook formulas and loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import (
    holm,
    interval,
    paired_difference,
    paired_permutation,
    pearson,
    pearson_p,
    ratio,
    resampled_ratio,
    resampling_matrix,
    two_sample_permutation,
)
from attention_atlas.measures.metric import head_rows


def test_resampling_draws_as_many_images_as_there_are():
    counts = resampling_matrix(7, 300, seed=3)
    assert counts.shape == (300, 7)
    assert set(counts.sum(axis=1)) == {7.0}
    # Each image is drawn once per resample on average; 300 * 7 draws, so within 0.25 of 1.
    assert np.abs(counts.mean(axis=0) - 1).max() < 0.25
    assert np.array_equal(counts, resampling_matrix(7, 300, seed=3))
    assert not np.array_equal(counts, resampling_matrix(7, 300, seed=4))
    with pytest.raises(AtlasError, match="no images"):
        resampling_matrix(0)


def test_resampled_ratio_equals_a_loop_over_drawn_images():
    rng = np.random.default_rng(0)
    num, den = rng.random((5, 2, 3)), rng.random((5, 2, 3)) + 0.1
    counts = resampling_matrix(5, 20, seed=1)
    got = resampled_ratio(num, den, counts)
    for b in range(20):
        drawn = [i for i in range(5) for _ in range(int(counts[b, i]))]
        expected = sum(num[i] for i in drawn) / sum(den[i] for i in drawn)
        np.testing.assert_allclose(got[b], expected)
    np.testing.assert_allclose(ratio(num, den), num.sum(0) / den.sum(0))


def test_interval_of_a_mean_is_that_of_the_normal_theory():
    """200 images of known spread: the bootstrap interval is mean +- 1.96 s / sqrt(n), within 10 %."""
    x = np.random.default_rng(5).normal(2.0, 1.5, 200)
    low, high = interval(resampled_ratio(x, np.ones(200), resampling_matrix(200, 4000, 0)))
    half = 1.96 * x.std() / np.sqrt(200)
    assert low == pytest.approx(x.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.1 * half)


def test_interval_leaves_out_resamples_without_a_value():
    values = np.array([[0.0, np.nan], [1.0, np.nan], [np.nan, np.nan], [2.0, np.nan]])
    low, high = interval(values, level=0.0)
    assert low[0] == high[0] == 1.0
    assert np.isnan(low[1]) and np.isnan(high[1])


def test_paired_difference_sees_what_separate_intervals_hide():
    """Images differ a lot, the conditions by a steady 0.1: paired, that is far from 0."""
    rng = np.random.default_rng(2)
    base = rng.normal(0, 1, 60)
    first, second = base + 0.1 + rng.normal(0, 0.05, 60), base
    ones, counts = np.ones(60), resampling_matrix(60, 1000, 0)
    found = paired_difference((first, ones), (second, ones), counts)
    assert found.value == pytest.approx((first - second).mean())
    assert 0 < found.ci_low < found.value < found.ci_high
    assert found.p == pytest.approx(2 / 1001)  # no resample on the other side
    same = paired_difference((second, ones), (second, ones), counts)
    assert same.value == 0 and same.p == 1


def test_permutation_of_signs_equals_the_enumeration():
    """Four differences: of the 16 sign patterns, 2 (all +, all -) are as extreme -> p = 2/16."""
    diff = np.array([1.0, 2.0, 3.0, 4.0])
    exact = np.mean([abs(np.dot(s, diff)) >= 10 for s in itertools.product([-1, 1], repeat=4)])
    assert exact == 2 / 16
    assert paired_permutation(diff, 20000) == pytest.approx(exact, abs=0.01)
    cells = paired_permutation(np.stack([diff, np.array([1.0, -1, 1, -1])], axis=1), 2000)
    assert cells.shape == (2,) and cells[1] == 1.0


def test_two_sample_permutation_equals_the_enumeration():
    """{5, 6} against {1, 2, 3}: of 10 ways to choose two, only {5, 6} reaches the difference 3.5."""
    p = two_sample_permutation(np.array([5.0, 6.0]), np.array([1.0, 2.0, 3.0]), 20000)
    assert p == pytest.approx(0.1, abs=0.01)
    with pytest.raises(AtlasError, match="group is empty"):
        two_sample_permutation(np.zeros(0), np.ones(3))


def test_holm_by_hand():
    """Sorted 0.01, 0.02, 0.04 times 3, 2, 1 = 0.03, 0.04, 0.04."""
    np.testing.assert_allclose(holm([[0.04, 0.01], [0.02, 1.0]]), [[0.08, 0.04], [0.06, 1.0]])
    np.testing.assert_allclose(holm([0.04, 0.01, 0.02]), [0.04, 0.03, 0.04])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_never_lowers(p):
    adjusted = holm(p)
    assert (adjusted >= np.array(p) - 1e-15).all() and (adjusted <= 1).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


def test_pearson_and_its_p_agree_with_scipy_and_with_the_paper():
    rng = np.random.default_rng(0)
    x, y = rng.random(12), rng.random(12)
    wanted = stats.pearsonr(x, y)
    assert pearson(x, y) == pytest.approx(wanted.statistic)
    assert pearson_p(float(pearson(x, y)), 12) == pytest.approx(wanted.pvalue)
    assert np.isnan(pearson(np.ones(4), np.arange(4.0)))
    # "Attention as Grounding": r = -0.71, p = 1.7e-8 belongs to n = 48 heads (r given to two digits).
    assert pearson_p(-0.715, 48) < 1.7e-8 < pearson_p(-0.705, 48)
    assert pearson_p(1.0, 48) == 0.0 and np.isnan(pearson_p(0.5, 2))


def test_a_head_without_a_value_is_left_out_of_the_means():
    """Two images, one layer, two heads; head 1 never has a denominator: the layer's mean is head 0's."""
    num = np.array([[[1.0, 0.0]], [[2.0, 0.0]]])
    den = np.array([[[2.0, 0.0]], [[4.0, 0.0]]])
    counts = resampling_matrix(2, 50)
    rows = head_rows(num, den, counts, 0.25, {"n": 2})
    values = {(r["layer"], r["head"]): (r["value"], r["ci_low"], r["ci_high"]) for r in rows}
    assert values[-1, -1] == values[0, -1] == values[0, 0] == (0.5, 0.5, 0.5)
    assert np.isnan(values[0, 1]).all()
    nothing = head_rows(0 * num, 0 * den, counts, 0.25, {"n": 2})
    assert all(np.isnan(r["value"]) for r in nothing)
