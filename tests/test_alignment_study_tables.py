"""Tables of the study on planted results, statistics against hand-worked examples and naive loops."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from alignment_planted import NAMES, SKILL, panel, write_panel

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.results import write_results
from attention_atlas.measures.table import measured, read_table, select
from attention_atlas.studies.alignment.compare import consistent, estimates
from attention_atlas.studies.alignment.grounding import spearman, spearman_p, sums_by_image
from attention_atlas.studies.alignment.panel import Panel, read_panel
from attention_atlas.studies.alignment.same import groups
from attention_atlas.studies.alignment.study import about, study_table, write_examples
from attention_atlas.studies.alignment.tables import ranked

SCORES = {"scan": "accuracy", "mac": "accuracy"}


@pytest.fixture(scope="module")
def made() -> Panel:
    return panel()


@pytest.fixture(scope="module")
def table(made: Panel) -> pd.DataFrame:
    return study_table([made, panel("mac", "shapes", seeds=1)], [], SCORES, "dot", ["FID"])


def value(table: pd.DataFrame, column: str = "value", **where: str) -> float:
    rows = measured(table, **{"model": "scan", **where})
    assert len(rows) == 1, (where, len(rows))
    return float(rows.iloc[0][column])


def test_each_alignment_has_its_own_chance() -> None:
    """A model that answers nearly everything the same way is right by chance more often than another."""
    own = panel(seeds=2)
    for k, chance in enumerate((30.0, 40.0)):
        own.runs[NAMES[1]][k].scores["chance accuracy"] = chance
    found = study_table([own], [], SCORES, "dot", ["FID"])
    row = {"kind": "score", "measure": "accuracy"}
    assert value(found, "chance", **row, alignment=NAMES[1]) == 35.0
    assert value(found, "chance", **row, alignment=NAMES[0]) == 20.0


def test_scores_are_means_over_seeds_with_chance(table: pd.DataFrame, made: Panel) -> None:
    for name in NAMES:
        runs = [r.scores["accuracy"] for r in made.runs[name]]
        row = {"kind": "score", "measure": "accuracy", "alignment": name}
        assert value(table, **row) == pytest.approx(np.mean(runs))
        assert value(table, "chance", **row) == 20.0 and value(table, "n", **row) == 300
        assert value(table, "ci_low", **row) < np.mean(runs) < value(table, "ci_high", **row)
        assert value(table, **row, statistic="sd") == pytest.approx(np.std(runs, ddof=1))
    second = value(table, kind="score", measure="accuracy", alignment="dot", seed="1")
    assert second == pytest.approx(made.runs["dot"][1].scores["accuracy"])


def test_intervals_agree_with_a_naive_bootstrap_over_images(made: Panel) -> None:
    found = estimates(made, "accuracy")[0]
    images: dict[str, list[float]] = {}
    for run in made.runs["cosine"]:
        for row in run.examples:
            images.setdefault(row["image"], []).append(row["value"])
    values = list(images.values())
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(2000):
        chosen = [values[i] for i in rng.integers(len(values), size=len(values))]
        drawn.append(100 * np.mean([v for part in chosen for v in part]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert (found.ci_low, found.ci_high) == pytest.approx((low, high), abs=0.7)


def test_a_score_that_is_no_mean_of_examples_has_the_seeds_interval(made: Panel) -> None:
    from scipy import stats

    assert consistent(made, "FID") is None and consistent(made, "accuracy") is not None
    every = made.scores("FID")
    scores = every[1]
    found = estimates(made, "FID")[1]
    half = stats.t.ppf(0.975, 16) * np.sqrt(every.var(1, ddof=1).mean()) / np.sqrt(3)
    assert (found.ci_low, found.ci_high, found.n) == pytest.approx(
        (scores.mean() - half, scores.mean() + half, 0)
    )


def test_planted_best_worst_and_ties(table: pd.DataFrame, made: Panel) -> None:
    order = ranked(made, "accuracy")
    assert (order[0], order[-1]) == ("general_kq", "activated_general")
    assert ranked(made, "FID", ["FID"])[0] == "general_kq" and ranked(made, "FID")[0] == "activated_general"

    where = {"kind": "difference", "measure": "accuracy", "against": "dot", "condition": "reference"}

    def marked(alignment: str) -> float:
        return value(table, **where, alignment=alignment, statistic="marked")

    assert marked("general_kq") == 1 and marked("activated_general") == 1
    assert marked("cosine") == 0 and marked("scaled_dot") == 0
    best = where | {"against": "general_kq", "condition": "best"}
    assert value(table, **best, alignment="dot", statistic="marked") == 1
    assert value(table, **where, alignment="general_kq") > 10
    equal = select(table, model="scan", kind="equal rows", measure="accuracy")
    assert set(zip(equal["alignment"], equal["against"], strict=True)) == {
        ("cosine", "dot"),
        ("cosine", "scaled_dot"),
        ("dot", "scaled_dot"),
        ("general_qk", "biased_general_qk"),
    }
    assert np.abs(equal.loc[equal["statistic"] == "", "value"]).max() < 3


def test_pooled_noise_of_seeds_is_in_the_table(table: pd.DataFrame, made: Panel) -> None:
    scores = made.scores("accuracy")
    row = {"kind": "score", "measure": "accuracy", "statistic": "pooled sd"}
    assert value(table, **row) == pytest.approx(np.sqrt(scores.var(1, ddof=1).mean()))
    assert value(table, "n", **row) == 8 * 2


def test_breakdown_is_the_mean_of_the_group(table: pd.DataFrame, made: Panel) -> None:
    rows = [r for c in made.runs["dot"] for r in c.examples if r["type"] == "count"]
    where = {"kind": "breakdown", "measure": "accuracy"}
    found = value(table, **where, condition="type", alignment="dot", group="count")
    assert found == pytest.approx(100 * np.mean([r["value"] for r in rows]))
    nouns = select(table, **where, model="scan", condition="nouns")
    assert list(nouns["alignment"][:8]) == list(NAMES) and len(nouns) == 40
    assert set(nouns["group"][:8]) == {"1"}


def test_runs_with_other_examples_are_refused(made: Panel) -> None:
    broken = panel(seeds=1)
    broken.runs["dot"][0].examples.pop()
    with pytest.raises(
        AtlasError, match=r"scan on toys: dot: accuracy: examples differ from .* .299 and 300"
    ):
        estimates(broken, "accuracy")
    del broken.runs["dot"][0].scores["FID"]
    with pytest.raises(AtlasError, match="dot: no score 'FID'"):
        broken.scores("FID")


def test_grounding_is_the_mean_over_words(table: pd.DataFrame, made: Panel) -> None:
    rows = [r for c in made.runs["general_kq"] for r in c.grounding]
    where = {"kind": "grounding", "alignment": "general_kq"}
    assert value(table, measure="mass", **where) == pytest.approx(np.mean([r["mass"] for r in rows]))
    assert value(table, measure="top1", **where) == pytest.approx(np.mean([r["top1"] for r in rows]))
    assert value(table, "chance", measure="mass", **where) == pytest.approx(0.1)
    over = value(table, measure="mass over chance", **where)
    assert over == pytest.approx(np.mean([r["mass"] for r in rows]) / 0.1)
    _, den, words = sums_by_image(made, "mass")
    assert words == 300 and den.sum(0).tolist() == pytest.approx([300.0] * 8)


def test_grounding_of_examples_without_rows_still_counts() -> None:
    """A word of an example that no row is about makes an image of its own in the bootstrap."""
    one = panel(seeds=1)
    for runs in one.runs.values():
        runs[0].grounding.append({"example": "new", "word": "x", "mass": 1.0, "chance": 0.1, "top1": 1})
    num, _, words = sums_by_image(one, "mass")
    assert words == 301 and num[-1].tolist() == [1.0] * 8 and len(num) == 101


def test_spearman_against_all_orders_and_ties() -> None:
    x, y = np.array([1.0, 2.0, 2.0, 4.0, 5.0]), np.array([2.0, 1.0, 3.0, 5.0, 4.0])
    ranks_x, ranks_y = np.array([1, 2.5, 2.5, 4, 5]), np.array([2, 1, 3, 5, 4])
    seen = np.corrcoef(ranks_x, ranks_y)[0, 1]
    assert spearman(x, y) == pytest.approx(seen)
    null = [abs(np.corrcoef(ranks_x, p)[0, 1]) >= abs(seen) - 1e-12 for p in permutations(ranks_y)]
    assert spearman_p(x, y) == pytest.approx(np.mean(null))
    assert np.isnan(spearman(x, np.ones(5))) and np.isnan(spearman_p(x, np.ones(5)))


def test_planted_correlation_is_found(table: pd.DataFrame) -> None:
    """Grounding was planted to rise with the skill."""
    where = {"kind": "grounding correlation", "measure": "accuracy", "condition": "mass"}
    assert value(table, **where) > 0.8 and value(table, **where, statistic="p") < 0.02
    assert value(table, "n", **where) == 8
    assert value(table, "ci_low", **where) <= value(table, **where)
    pooled = measured(table, model="all", kind="grounding correlation")
    assert pooled["n"].tolist() == [16] and pooled["value"].iloc[0] > 0.8


def test_groups_join_pairs() -> None:
    pairs = [{"a": a, "b": b, "how": "same weights"} for a, b in (("x", "y"), ("z", "w"), ("y", "z"))]
    assert groups(pairs) == [{"x", "y", "z", "w"}]
    assert groups(pairs, ("matrix transposed",)) == []


def test_study_is_written_and_read_back(tmp_path: Path) -> None:
    write_panel(tmp_path / "runs", panel(seeds=2))
    found = read_panel(tmp_path / "runs", list(NAMES))
    assert found.alignments == list(NAMES) and found.seeds == 2 and len(found.same) == 3
    frame = study_table([found], [], SCORES, "dot", ["FID"])
    for folder in ("a", "b"):
        titles = {"dot": "dot product"}
        write_examples({"toy": found}, SCORES, titles, ["FID"], tmp_path / folder)
        write_results(tmp_path / folder, frame, about(frame, {"toy": found}, SCORES, titles, ["FID"]))
    names = ["metrics.json", "tables/metrics.csv", "tables/shown_toy.json"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert len(read_table(tmp_path / "a/tables/metrics.csv")) == len(frame)
    assert "cosine = dot product = scaled_dot" in (tmp_path / "a/metrics.json").read_text()
    assert SKILL["general_kq"] == max(SKILL.values())


def test_missing_runs_and_unknown_scores_are_named(tmp_path: Path, made: Panel) -> None:
    with pytest.raises(AtlasError, match="no such folder; run its stage"):
        read_panel(tmp_path / "none", [])
    with pytest.raises(ConfigError, match="scan has no 'acuracy'; did you mean 'accuracy'"):
        study_table([made], [], {"scan": "acuracy"}, "dot")
