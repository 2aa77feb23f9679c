"""Which differences between alignments are marked: by hand, on simulated noise, and on equal functions."""

from __future__ import annotations

import numpy as np
import pytest
from alignment_planted import panel

from attention_atlas.measures.table import select
from attention_atlas.studies.alignment.compare import (
    combined_error,
    control,
    estimates,
    holm,
    pooled,
    t_test,
    verdicts,
)
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.result import RunResult
from attention_atlas.studies.alignment.study import about, study_table

BY_HAND = np.array([[10.0, 12.0], [14.0, 16.0], [20.0, 20.0]])


def whole_set(score_AS: np.ndarray) -> Panel:
    """A score of the whole test set (no values of examples) for each alignment and seed."""
    runs = {f"a{i}": [RunResult({"FID": float(x)}) for x in row] for i, row in enumerate(score_AS)}
    return Panel("toy", "toys", runs)


def with_examples(value_ASE: np.ndarray) -> Panel:
    """A score that is the mean of its examples, one image each."""

    def run(value_E: np.ndarray) -> RunResult:
        rows = [{"example": f"e{k:03d}", "metric": "score", "value": float(v)} for k, v in enumerate(value_E)]
        return RunResult({"score": float(value_E.mean())}, rows)

    return Panel("toy", "toys", {f"a{i}": [run(v) for v in row] for i, row in enumerate(value_ASE)})


def test_holm_by_hand() -> None:
    """Four p values: times 4, 3, 2, 1 in their order, never falling, at most 1; NaN is no test."""
    found = holm(np.array([0.04, 0.01, np.nan, 0.03, 0.02]))
    assert found == pytest.approx([0.06, 0.04, np.nan, 0.06, 0.06], nan_ok=True)
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_pooled_seeds_by_hand() -> None:
    """Squares around the three means: 2 + 2 + 0 = 4 over 3 degrees of freedom. The first two means differ by
    4, with standard error sqrt(4/3) * sqrt(2/2)."""
    from scipy import stats

    noise = pooled(BY_HAND)
    assert (noise.sd, noise.freedom) == (pytest.approx(np.sqrt(4 / 3)), 3)
    one = verdicts(whole_set(BY_HAND), "FID")["a1", "a0"]
    p = 2 * stats.t.sf(4 / np.sqrt(4 / 3), 3)
    assert (one.value, one.p_seeds, one.p_both) == (4.0, pytest.approx(p), pytest.approx(p))
    half = stats.t.ppf(0.975, 3) * np.sqrt(4 / 3)
    assert (one.ci_low, one.ci_high) == (pytest.approx(4 - half), pytest.approx(4 + half))
    # Differences 4, 5 and 9: of three pairs, this has the largest p, so Holm leaves it as it is.
    assert one.p == pytest.approx(max(p, verdicts(whole_set(BY_HAND), "FID")["a2", "a1"].p))
    # The interval of a score has the same noise, divided by two seeds.
    score = estimates(whole_set(BY_HAND), "FID")[0]
    assert score.ci_high - 11 == pytest.approx(stats.t.ppf(0.975, 3) * np.sqrt(4 / 3 / 2))


def test_both_kinds_of_noise_by_hand() -> None:
    """Errors 3 over seeds (5 degrees of freedom) and 4 over images (20) make 5, with Satterthwaite's
    5^4 / (3^4/5 + 4^4/20) degrees of freedom; Clark's min F' is (1/F1 + 1/F2)^-1."""
    from scipy import stats

    error, freedom = combined_error(np.array([3.0]), 5, np.array([4.0]), 20)
    assert (error[0], freedom[0]) == (5.0, pytest.approx(625 / (81 / 5 + 256 / 20)))
    gap = 12.0
    min_f = 1 / (1 / (gap / 3) ** 2 + 1 / (gap / 4) ** 2)
    assert t_test(np.array([gap]), error, freedom)[0] == pytest.approx(stats.f.sf(min_f, 1, freedom[0]))
    alone, _ = combined_error(np.array([3.0]), 5, np.array([np.nan]), 20)
    unknown, _ = combined_error(np.array([np.nan]), 0, np.array([4.0]), 20)
    assert alone[0] == 3.0 and np.isnan(unknown[0])
    assert np.isnan(t_test(np.array([9.0]), unknown, np.ones(1))[0])


def test_one_seed_is_never_marked() -> None:
    """However clear the test images are: what another training run would give is unknown."""
    one = panel("mac", "shapes", seeds=1)
    found = verdicts(one, "accuracy")
    clear = found["general_kq", "activated_general"]
    assert clear.value > 30 and clear.p_examples < 0.002 and np.isnan([clear.ci_low, clear.ci_high]).all()
    assert all(np.isnan([v.p, v.p_seeds, v.p_both]).all() and not v.real for v in found.values())
    table = study_table([one], [], {"mac": "accuracy"}, "dot", ["FID"])
    assert select(table, kind="difference", statistic="marked")["value"].isna().all()
    assert select(table, statistic="pooled sd")["n"].tolist() == [0, 0]
    notes = about(table, {"p": one}, {"mac": "accuracy"}, {})
    assert "1 seed, so that nothing is marked" in notes["SCAN, shapes"]
    assert "no pair of equal functions was trained with two seeds" in notes["negative control"]


def simulated(rng: np.random.Generator, effect: float = 0.0, interaction: float = 0.0) -> np.ndarray:
    """(A=5,S=2,E=40): images, seeds and their noise; `interaction`: what an alignment is better at on some
    images and worse on others; `effect`: added to the last alignment."""
    value_ASE = rng.normal(size=(1, 1, 40)) + 0.3 * rng.normal(size=(5, 2, 1)) + rng.normal(size=(5, 2, 40))
    value_ASE += interaction * rng.normal(size=(5, 1, 40))
    value_ASE[-1] += effect
    return value_ASE


def rates(draws: list[Panel], name: str) -> dict[str, float]:
    """Shares of pairs with p below 5 % and of draws with at least one mark."""
    found = [verdicts(one, name) for one in draws]
    every = [v for one in found for v in one.values()]
    single = {k: float(np.mean([getattr(v, k) < 0.05 for v in every])) for k in ("p_both", "p_seeds")}
    return {**single, "any": float(np.mean([any(v.real for v in one.values()) for one in found]))}


def test_pooled_seeds_keep_their_level_exactly() -> None:
    rng = np.random.default_rng(0)
    found = rates([whole_set(rng.normal(size=(5, 2))) for _ in range(1500)], "FID")
    assert found["p_both"] == pytest.approx(0.05, abs=0.012)
    assert 0.01 < found["any"] < 0.05 + 0.015


@pytest.mark.parametrize("interaction", [0.0, 2.0])
def test_no_more_marks_than_the_level_on_noise(interaction: float) -> None:
    """Also where alignments differ on single images but not on average, which a test of seeds alone takes
    for a difference."""
    rng = np.random.default_rng(1)
    found = rates([with_examples(simulated(rng, 0.0, interaction)) for _ in range(200)], "score")
    assert found["p_both"] < 0.05 + 0.015 and found["any"] < 0.05 + 0.03
    if interaction:
        assert found["p_seeds"] > 0.1


def test_a_planted_difference_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [verdicts(with_examples(simulated(rng, effect=4.0)), "score") for _ in range(50)]
    assert np.mean([one["a4", "a0"].real for one in found]) > 0.9
    assert np.mean([one["a1", "a0"].real for one in found]) < 0.1


def test_control_counts_tests_only() -> None:
    assert control([0.0, np.nan, 1.0, 0.0]) == control([1.0, 0.0, 0.0])
    assert not control([1.0, *[0.0] * 18]).passed and control([1.0, *[0.0] * 19]).passed
    assert control([np.nan]).pairs == 0 and control([]).passed


def test_equal_functions_that_differ_take_the_marks_away() -> None:
    """Seeds that hardly scatter, while rows of one function differ: the noise is underestimated."""
    good = panel(seeds=3)
    scores = {"scan": "accuracy"}
    table = study_table([good], [], scores, "dot", ["FID"])
    rows = select(table, kind="negative control").set_index("measure")
    assert rows.loc["marked", "value"] == 0 and rows.loc["marked", "n"] == 8  # 4 pairs, 2 scores
    assert rows.loc["marked", "chance"] == 0.05 and rows.loc["rule used", "value"] == 1
    assert select(table, kind="difference", statistic="marked")["value"].sum() > 0
    assert "0 of 8 differences" in about(table, {"p": good}, scores, {})["negative control"]

    bad = panel(seeds=3, runs={n: [c[0]] * 3 for n, c in good.runs.items()})
    for k, name in enumerate(bad.runs):
        bad.runs[name] = [
            RunResult({**c.scores, "FID": c.scores["FID"] + 3.0 * k + 0.01 * s}, c.examples, c.grounding)
            for s, c in enumerate(bad.runs[name])
        ]
    table = study_table([bad], [], scores, "dot", ["FID"])
    rows = select(table, kind="negative control").set_index("measure")
    assert rows.loc["marked", "value"] == 0.5 and rows.loc["rule used", "value"] == 0
    assert select(table, kind="difference", statistic="marked")["value"].isna().all()
    assert (select(table, kind="difference", statistic="p Holm", measure="FID")["value"] < 0.05).any()
    assert "so no difference is marked" in about(table, {"p": bad}, scores, {})["negative control"]
