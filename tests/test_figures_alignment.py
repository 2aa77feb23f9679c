"""Figures of the alignment study from planted results: figures show the values of the table."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alignment_planted import NAMES, panel
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import measured, select
from attention_atlas.plotting.style import style
from attention_atlas.studies.alignment.figures import same_letters, score_table
from attention_atlas.studies.alignment.figures_breakdown import breakdown, correlation, grounding, seeds
from attention_atlas.studies.alignment.figures_shown import attention_map, chosen_words, paint, side_by_side
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.select import choose, write_shown
from attention_atlas.studies.alignment.study import study_table
from attention_atlas.training.tasks.compositional import TYPES
from attention_atlas.workflow.compose import compose

TITLES = {name: f"the {name}" for name in NAMES}
SCAN = {"model": "scan", "data": "toys", "measure": "accuracy"}
PANELS = {"SCAN": SCAN}


@pytest.fixture(scope="module")
def made() -> Panel:
    return panel(seeds=2)


@pytest.fixture(scope="module")
def table(made: Panel) -> pd.DataFrame:
    return study_table([made], [], {"scan": "accuracy"}, "dot", ["FID"])


def texts(figure: Any) -> list[str]:
    from matplotlib.text import Text

    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_score_table_shows_values_marks_and_the_best(table: pd.DataFrame, made: Panel) -> None:
    columns = [SCAN, {**SCAN, "measure": "FID", "digits": 2}]
    with style():
        figure = score_table(table, columns, TITLES, ["FID"], {"scan": "cosine"})
    found = texts(figure)
    for name in NAMES:
        mean = np.mean([c.scores["accuracy"] for c in made.runs[name]])
        star = "" if name == "general_kq" else "*"
        assert any(t in (f"{mean:.1f}", f"{mean:.1f}{star}") for t in found), name
        assert f"the {name}" in found
    best = f"{np.mean([c.scores['accuracy'] for c in made.runs['general_kq']]):.1f}"
    assert best in found, "the best row has no mark"
    assert "FID ↓" in found and "20.0" in found and found.count("⋄") == 2
    assert found.count("a") == 6 and found.count("b") == 4, "equal rows share a letter in each column"
    # Less FID is better: the frame is around the lowest value.
    boxes = [p for p in figure.axes[0].patches if not p.get_fill()]
    rows = sorted({int(p.get_y()) for p in boxes})
    assert rows == [NAMES.index("general_kq")] and len(boxes) == 2


def test_score_table_explains_marks_and_shows_the_noise_of_seeds(table: pd.DataFrame) -> None:
    with style():
        two = " ".join(texts(score_table(table, [SCAN], TITLES)))
        single = study_table([panel(seeds=1)], [], {"scan": "accuracy"}, "dot", ["FID"])
        one = " ".join(texts(score_table(single, [SCAN], TITLES)))
        refused = table.copy()
        refused.loc[refused["measure"] == "rule used", "value"] = 0.0
        none = " ".join(texts(score_table(refused, [SCAN], TITLES)))
    assert "(8)" in two and "sd of seeds (df)" in two and "* differs from the best beyond noise" in two
    assert "no marks: with one seed" in one and "sd of seeds" not in one and "*" not in one.split("small")[0]
    assert "no marks: the test also marks rows that are the same function" in none


def test_letters(table: pd.DataFrame) -> None:
    letters = same_letters(table, "scan", "toys")
    assert letters["cosine"] == letters["dot"] == letters["scaled_dot"] != letters["general_qk"]
    assert "general_kq" not in letters


def test_breakdown_bars_are_the_table_values(table: pd.DataFrame) -> None:
    with style():
        figure = breakdown(table, "scan", "toys", {"accuracy": "t"}, "type", "accuracy", TITLES)
    heights = [p.get_height() for p in figure.axes[0].patches]
    rows = select(table, kind="breakdown", condition="type", measure="accuracy")
    rows = rows.set_index(["alignment", "group"])
    members = ["count", "exist", "query attribute"]
    wanted = [rows.loc[(name, m), "value"] for name in ("general_kq", "activated_general") for m in members]
    assert heights == pytest.approx(wanted)
    assert "the general_kq (best)" in texts(figure) and "count\n(100)" in texts(figure)


def test_seeds_and_grounding_and_correlation_are_drawn(table: pd.DataFrame) -> None:
    with style():
        drawn = seeds(table, PANELS, TITLES)
        marks = [line for line in drawn.axes[0].lines if line.get_marker() == "|"]
        assert len(marks) == 8 and all(len(line.get_xdata()) == 2 for line in marks)
        assert "SCAN" in texts(grounding(table, PANELS, TITLES))
        text = " ".join(texts(correlation(table, PANELS, TITLES)))
    where = {"kind": "grounding correlation", "measure": "accuracy", "condition": "mass"}
    rho = measured(table, **where, model="scan")["value"].iloc[0]
    assert f"ρ = {rho:.2f}" in text and "n = 8" in text


def test_figures_without_intervals_draw_none(table: pd.DataFrame) -> None:
    """One test image has no interval: no error bar at all, not one of width 0."""
    table = table.assign(ci_low=np.nan, ci_high=np.nan)
    with style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        bars = breakdown(table, "scan", "toys", {"accuracy": "t"}, "type", "accuracy", TITLES)
        figures = [bars, seeds(table, PANELS, TITLES), correlation(table, PANELS, TITLES)]
        figures += [grounding(table, PANELS, TITLES), score_table(table, [SCAN], TITLES)]
        for figure in figures:
            figure.canvas.draw()
    # matplotlib leaves points that are NaN out of the segments.
    assert not [s for c in bars.axes[0].collections for s in c.get_segments() if len(s)]
    assert "95 %: none" in " ".join(texts(figures[2]))
    assert not any("±" in text or "nan" in text for figure in figures for text in texts(figure))


def test_what_is_missing_is_named(table: pd.DataFrame) -> None:
    with style():
        with pytest.raises(AtlasError, match="no rows for model=mac"):
            score_table(table, [SCAN, {**SCAN, "model": "mac"}], TITLES)
        with pytest.raises(AtlasError, match="no alignment of `titles`"):
            score_table(table, [SCAN], {"other": "x"})
        with pytest.raises(AtlasError, match="no grounding of mac"):
            correlation(table, {"x": {**SCAN, "model": "mac"}}, TITLES)


def test_paint_puts_boxes_where_they_are_and_keeps_the_highest() -> None:
    boxes = np.array([[0, 0, 4, 2], [2, 0, 8, 4]])
    pixels = paint((4, 8), boxes, np.array([0.7, 0.3]), 1.0)
    assert pixels[0].tolist() == [0.7, 0.7, 0.7, 0.7, 0.3, 0.3, 0.3, 0.3]
    assert pixels[3].tolist() == [0, 0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    assert np.array_equal(paint((8, 16), boxes, np.array([0.7, 0.3]), 2.0)[::2, ::2], pixels)


def test_grids_are_in_raster_order() -> None:
    entry = {"grid": [2, 3], "size": [6, 4]}
    assert attention_map(entry, np.arange(6.0), np.zeros((4, 6, 3))).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_words_that_mean_a_region_come_first_then_the_highest_peaks() -> None:
    words = ["a", "red", ".", "chair"]
    entry = {"words": words, "attention": [[0.2], [0.5], [0.9], [0.4]]}
    other = {"words": words, "attention": [[0.7], [0.1], [0.9], [0.1]]}
    assert chosen_words(entry, [entry], [], 2) == [1, 3] and chosen_words(entry, [entry], [], 4) == [
        0,
        1,
        2,
        3,
    ]
    assert chosen_words(entry, [entry], ["a"], 2) == [0, 1]
    # Both alignments show the same words, chosen by the higher of their peaks.
    assert chosen_words(entry, [entry, other], [], 2) == chosen_words(other, [entry, other], [], 2) == [0, 1]


def test_examples_are_those_that_the_best_wins(made: Panel, tmp_path: Path) -> None:
    pair = ["general_kq", "activated_general"]
    order = choose(made, pair, "accuracy", 5)
    value = {
        name: {r["example"]: r["value"] for r in made.runs[name][0].examples if r["metric"] == "accuracy"}
        for name in pair
    }
    gains = [value[pair[0]][e] - value[pair[1]][e] for e in order]
    assert gains == sorted(gains, reverse=True) and len(order) == 5
    path = tmp_path / "shown.json"
    write_shown(made, "accuracy", TITLES, path, count=2)
    content = json.loads(path.read_text())
    assert [a["name"] for a in content["alignments"]] == pair
    ruled, drawn = content["examples"]
    assert (ruled["example"], ruled["chosen"], drawn["chosen"]) == (order[0], "by rule", "at random")
    assert drawn["example"] in order[1:]
    with style():
        figure = side_by_side(pd.DataFrame(), str(path), 1)
        found = texts(figure)
        assert "example drawn at random" in found
        by_rule = texts(side_by_side(pd.DataFrame(), str(path), 0))
        assert "example chosen by rule: where the best alignment gains most over the worst" in by_rule
        with pytest.raises(AtlasError, match="has 2 examples, not 3"):
            side_by_side(pd.DataFrame(), str(path), 2)
    assert any(t.startswith("best: the general_kq") for t in found) and found.count("chair") == 2
    drawn["maps"][0]["attention"] = [[0.004] * len(attn) for attn in drawn["maps"][0]["attention"]]
    path.write_text(json.dumps(content))
    with style():
        assert "0.4 %" in texts(side_by_side(pd.DataFrame(), str(path), 1)), "not 0 %"


def test_alignments_that_show_other_examples_are_refused(made: Panel) -> None:
    broken = panel(seeds=1)
    broken.runs["dot"][0].shown.pop()
    with pytest.raises(AtlasError, match="dot: shows other examples than cosine"):
        choose(broken, ["cosine", "dot"], "accuracy", 2)


@pytest.mark.parametrize("profile", ["mini", "smoke", "paper"])
def test_the_study_s_figures_and_alignments_fit(profile: str) -> None:
    """Figures have every alignment of conf/alignments, in its order, with the title of conf/alignment."""
    cfg = compose(ROOT, "plot", ["study=alignment", "figure=alignment", f"profile={profile}"])
    figure = cfg.figure
    paper = OmegaConf.load(ROOT / "conf/alignments/paper.yaml")
    order = [next(iter(entry.values())) for entry in paper["defaults"]]
    titles = {n: OmegaConf.load(ROOT / f"conf/alignment/{n}.yaml").title for n in order}
    assert list(figure.table2.titles.items()) == list(titles.items())
    wanted = cfg.study.panels
    panels = {(p.model, p.data) for p in wanted.values()}
    for entry in figure.values():
        for column in entry.get("columns", []):
            assert (column.model, column.data) in panels
            if "member" in column:
                assert column.member in TYPES
        if "shown" in entry:
            assert any(entry.shown.endswith(f"shown_{name}.json") for name in wanted)
