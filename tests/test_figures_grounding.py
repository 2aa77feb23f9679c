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
