"""Figures 3-6: what is printed equals the table, files are the same bytes, faults are named."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.table import make_table, write_table
from attention_atlas.plotting.curves import curve, layer_curves
from attention_atlas.plotting.draw import draw_all
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.style import number, p_value, style
from attention_atlas.studies.grounding import figures as grounding
from attention_atlas.studies.grounding.figures_causes import by_cause

CONF = Path(__file__).resolve().parents[1] / "conf/figure/grounding.yaml"
LETTERS = ["a rel→target", "b land→rel", "c land→target", "d land→target+rel"]
LETTERS += ["e rel→target", "f rel→land", "g land→target", "h target→land"]


def block(metric, kind, condition, values_LH, n=10, chance=0.1):
    """Rows per head, per layer and overall."""
    base = {"measure": metric, "kind": kind, "condition": condition, "n": n, "chance": chance}
    values_LH = np.asarray(values_LH, dtype=float)

    def row(layer, head, value):
        return base | {
            "layer": layer,
            "head": head,
            "value": value,
            "ci_low": value - 0.05,
            "ci_high": value + 0.05,
        }

    rows = [row(-1, -1, values_LH.mean())]
    rows += [row(layer, -1, v.mean()) for layer, v in enumerate(values_LH)]
    return rows + [row(layer, head, v) for (layer, head), v in np.ndenumerate(values_LH)]


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    rows = []
    for kind in ("decoder_self", "cross"):
        rows += block("entropy", kind, "visible", rng.random((3, 4)), n=1234)
    rows += block("grounding", "cross", "phrases", [[0.05, 0.12, 0.2, 0.3]] * 2 + [[0.1, 0.16, 0.5, 0.149]])
    held = {"kind": "cross", "measure": "grounding_held_out", "condition": "phrases", "value": 0.4, "n": 10}
    rows.append(held | {"ci_low": 0.3, "ci_high": 0.5})
    area = {"kind": "cross", "measure": "grounding_chance", "condition": "area", "n": 10, "value": 0.12}
    rows.append(area | {"ci_low": 0.11, "ci_high": 0.13})
    for name in ("DET+ADJ+NOUN", "VERB+ADP"):
        rows += block("pos_share", "decoder_self", name, rng.random((3, 4)), n=900)
    pair = {"kind": "decoder_self", "condition": "DET+ADJ+NOUN", "against": "VERB+ADP", "n": 48}
    rows.append(pair | {"measure": "pos_correlation", "value": -0.71, "ci_low": -0.8, "ci_high": -0.6})
    rows.append(pair | {"measure": "pos_correlation", "statistic": "p", "value": 1.7e-8})
    for condition in LETTERS:
        kind = "decoder_self" if condition[0] < "e" else "cross"
        rows += block("relations", kind, condition, rng.random((3, 4)), n=70 + len(condition))
    return make_table(rows)


def causes(settings=("", "linkable", "gold links"), groups=("", "p < 0.5", "p ≥ 0.5")):
    """Rows of grounding by cause: value .10 plus .10 for each setting and .01 for each group."""
    rows = []
    for i, setting in enumerate(settings):
        for k, group in enumerate(groups):
            names, value = {"setting": setting, "group": group, "kind": "cross"}, 0.1 * (i + 1) + 0.01 * k
            rows += [r | names for r in block("grounding", "cross", "phrases", [[value] * 4] * 3, 100 - k)]
            interval = {"ci_low": value - 0.03, "ci_high": value + 0.04, "n": 100 - k, "condition": "phrases"}
            rows.append(names | interval | {"measure": "grounding_held_out", "value": value + 0.02})
            for condition, chance in (("uniform", 0.05), ("area", 0.07)):
                row = {"measure": "grounding_chance", "condition": condition, "value": chance + 0.01 * i}
                rows.append(names | row | {"n": 100 - k})
    return make_table(rows)


def points(axis):
    """The (value, low, high) of each point, in per cent, rounded."""
    found = []
    for container in axis.containers:
        ((low, high),) = [segment[:, 1] for segment in container.lines[2][0].get_segments()]
        found.append(tuple(round(float(v), 6) for v in (container.lines[0].get_ydata()[0], low, high)))
    return found


def test_causes_draw_the_table():
    with style():
        figure = by_cause(causes())
    links, probability, layers = figure.axes
    # The held-out head, then the mean of all heads, of each setting.
    assert points(links) == [
        (12, 7, 14), (10, 5, 15), (22, 17, 24), (20, 15, 25), (32, 27, 34), (30, 25, 35),
    ]  # fmt: skip
    assert [t.get_text().split("\n")[-1] for t in links.get_xticklabels()] == ["n = 100"] * 3
    # Both series have the same phrases, so all linked phrases are not shown.
    assert points(probability) == [(23, 18, 25), (33, 28, 35), (24, 19, 26), (34, 29, 36)]
    assert [t.get_text() for t in probability.get_xticklabels()] == ["p<0.5\nn = 99", "p≥0.5\nn = 98"]
    lines = [c.get_segments()[0][:, 1] for c in links.collections]
    chance = [round(float(y[0]), 6) for y in lines if y[0] == y[1]]  # the others are error bars
    assert chance == [5, 7, 6, 8, 7, 9]  # uniform, by area
    means = [container.lines[0].get_ydata().tolist() for container in layers.containers]
    np.testing.assert_allclose(means, [[10] * 3, [20] * 3, [30] * 3])


@pytest.mark.parametrize(
    ("settings", "groups", "panels", "said"),
    [
        (("",), ("", "p < 0.5", "p ≥ 0.5"), 3, ["no gold links"]),
        (("", "linkable", "gold links"), ("",), 2, ["no panel by probability"]),
        (("",), ("",), 2, ["no gold links", "no panel by probability"]),
    ],
)
def test_causes_that_were_not_measured_are_left_out_and_said(settings, groups, panels, said):
    with style():
        figure = by_cause(causes(settings, groups))
    note = figure.get_supxlabel()
    assert len(figure.axes) == panels and all(part in note for part in said)
    assert len([line for line in note.split("\n") if line.startswith("no ")]) == len(said)


def test_a_range_that_no_head_could_be_chosen_for_has_no_point():
    rows = causes()
    gone = (rows["measure"] == "grounding_held_out") & (rows["group"] == "p ≥ 0.5")
    with style():
        figure = by_cause(rows[~gone])
    assert len(points(figure.axes[1])) == 2


def texts(axis):
    return [t.get_text() for t in axis.texts]


def test_cells_print_the_table_first_layer_on_top(table):
    with style():
        figure = grounding.noun_grounding(table)
    axis = figure.axes[0]
    assert texts(axis) == ["5.0", "12.0", "20.0", "30.0"] * 2 + ["10.0", "16.0", "50.0", "14.9"]
    places = [t.get_position() for t in axis.texts]
    assert places[0] == (0, 0) and places[-1] == (3, 2)
    assert axis.yaxis.get_inverted()  # layer 1 is the top row
    assert [t.get_text() for t in axis.get_yticklabels()] == ["1", "2", "3"]
    assert "chance: uniform 10.0 %, by area 12.0 %" in axis.get_title()
    # Above 0.12 are the lower ends 0.15 and 0.25 (twice) and 0.45; 0.11 is above uniform chance alone.
    assert "n = 10 phrases; 5 of 12 heads above both chance levels" in figure.get_supxlabel()
    solid, dashed = figure.axes[1].get_lines()
    assert (solid.get_ydata()[0], solid.get_linestyle()) == (pytest.approx(10.0), "-")
    assert (dashed.get_ydata()[0], dashed.get_linestyle()) == (pytest.approx(12.0), "--")
    frame = axis.patches[0]
    assert frame.get_xy() == (1.5, 1.5)  # around layer 3, head 3


def test_dark_cells_carry_white_numbers(table):
    with style():
        axis = grounding.noun_grounding(table).axes[0]
    colours = {t.get_text(): t.get_color() for t in axis.texts}
    assert colours["50.0"] == "white" and colours["5.0"] == "black"


def test_pos_figure_carries_the_correlation(table):
    with style():
        figure = grounding.pos_sets(table, ["DET+ADJ+NOUN", "VERB+ADP"])
    note = figure.get_supxlabel()
    assert "r = −0.71 [−0.80, −0.60], p = 1.7 × 10⁻⁸, n = 48" in note and "n = 900 words" in note


def test_relations_have_eight_panels_with_their_own_scales(table):
    panels = OmegaConf.load(CONF)["fig6_relations"]["panels"]
    with style():
        figure = grounding.relations(table, panels)
        shared = grounding.relations(table, panels, scale="shared")
    titles = [a.get_title().split("\n")[0] for a in figure.axes if a.get_title()]
    assert titles == [f"({c[0]}) {c[2:]}" for c in LETTERS]
    ranges = {a.images[0].get_clim() for a in figure.axes if a.images}
    assert len(ranges) == 8
    assert len({a.images[0].get_clim() for a in shared.axes if a.images}) == 1
    assert "masked self-attention n = 80–87" in figure.get_supxlabel()


def test_layer_curves_take_means_and_intervals_from_the_table(table):
    rows = table[(table["measure"] == "grounding")]
    item = curve(rows, "x", 100.0)
    np.testing.assert_allclose(item.value_L[:2], [16.75, 16.75])
    np.testing.assert_allclose(item.high_L - item.value_L, 5.0)
    assert item.chance == pytest.approx(10) and item.heads_LH.shape == (3, 4)
    with style():
        figure = layer_curves([("t", [item])], width=3, label="y")
    line = figure.axes[0].containers[0].lines[0]
    np.testing.assert_allclose(line.get_ydata(), item.value_L)


def test_all_figures_of_the_yaml_come_out_the_same_twice(table, tmp_path):
    """In another process too, and with a matplotlibrc of the user's."""
    write_table(tmp_path / "m.csv", table)
    paths = draw_all(OmegaConf.load(CONF), tmp_path / "m.csv", tmp_path / "a", workers=2)
    assert [p.suffix for p in paths] == [".png", ".pdf"] * (len(paths) // 2) and len(paths) >= 10
    (tmp_path / "rc").mkdir()
    (tmp_path / "rc" / "matplotlibrc").write_text("font.size: 20\nsavefig.dpi: 50\n")
    code = (
        "import sys; from omegaconf import OmegaConf; from attention_atlas.plotting.draw import draw_all; "
        "conf = OmegaConf.load(sys.argv[1]); "
        "draw_all({k: conf[k] for k in ('fig4_nouns', 'layers')}, sys.argv[2], sys.argv[3])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(CONF), str(tmp_path / "m.csv"), str(tmp_path / "b")],
        check=True,
        env={**os.environ, "MATPLOTLIBRC": str(tmp_path / "rc")},
    )
    for path in [p for p in paths if p.stem in ("fig4_nouns", "layers")]:
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    assert not any(b"CreationDate" in p.read_bytes() for p in paths)


def test_each_entry_of_the_yaml_names_a_function():
    for name, entry in OmegaConf.load(CONF).items():
        assert callable(instantiate(entry, _partial_=True)), name


def test_faults_are_named(table, tmp_path):
    write_table(tmp_path / "m.csv", table[table["measure"] != "grounding"])
    figures = {"fig4": {"_target_": "attention_atlas.studies.grounding.figures.noun_grounding"}}
    with pytest.raises(AtlasError, match=r"m\.csv: figure 'fig4': no rows with measure = grounding") as error:
        draw_all(figures, tmp_path / "m.csv", tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(ConfigError, match="names no figures"):
        draw_all({}, tmp_path / "m.csv", tmp_path)
    for count in (1, 6):  # here, and in processes
        with pytest.raises(ConfigError, match="returned int"):
            lengths = {f"x{i}": {"_target_": "builtins.len"} for i in range(count)}
            draw_all(lengths, tmp_path / "m.csv", tmp_path, workers=2)
    with pytest.raises(AtlasError, match="scale: 'big'"):
        heatmaps([Panel(np.ones((2, 2)), "t")], width=3, columns=1, label="x", scale="big")
    with pytest.raises(AtlasError, match="panel 't': has no finite value"):
        heatmaps([Panel(np.full((2, 2), np.nan), "t")], width=3, columns=1, label="x")
    with pytest.raises(AtlasError, match="no panels"):
        heatmaps([], width=3, columns=1, label="x")


def test_a_constant_map_and_missing_heads_are_drawn():
    """All heads equal (an untrained model), one head without a value: no division by zero."""
    values = np.full((2, 2), 0.5)
    values[0, 1] = np.nan
    with style():
        figure = heatmaps([Panel(values, "t")], width=3, columns=1, label="x", digits=2)
    assert texts(figure.axes[0]) == ["0.50"] * 3


def test_numbers_for_print():
    assert number(-0.714) == "−0.71" and p_value(0.0312) == "p = 0.031"
    assert p_value(1.7e-8) == "p = 1.7 × 10⁻⁸" and p_value(0.0) == "p < 10⁻⁹⁹"
    with pytest.raises(AtlasError, match="not finite"):
        number(float("nan"))
