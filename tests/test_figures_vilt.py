"""Legends, numbers in cells and small samples in the figures of the layer-wise study."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import make_table
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.legends import outside
from attention_atlas.plotting.style import new_figure, style
from attention_atlas.studies.vilt_layers.figures import curves, distribution, roles
from attention_atlas.studies.vilt_layers.figures_heads import pruning

LAYERS = 12


def lines_table(names: dict[str, float], group: str = "") -> pd.DataFrame:
    """Rows of one measure per name, with its chance; every value of layer l is l / 20."""
    rows = []
    for name, chance in names.items():
        for layer in range(LAYERS):
            value = (layer + 1) / 20
            rows.append(
                {"kind": "joint", "measure": "mass", "condition": name, "group": group}
                | {
                    "layer": layer,
                    "head": -1,
                    "value": value,
                    "ci_low": value - 0.01,
                    "ci_high": value + 0.01,
                    "chance": chance,
                }
            )
    return make_table(rows)


def drawn(figure):
    """Lay the figure out and return a renderer."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return canvas.get_renderer()


@pytest.mark.parametrize("shared", [True, False])
def test_legends_lie_on_no_panel_and_within_the_figure(shared):
    with style():
        figure = new_figure(6.5, 2.8)
        axes = figure.subplots(1, 2)
        for i, ax in enumerate(axes):
            for n in range(9 if shared else 4):
                ax.plot([0, 1], [n, 0], label=f"kind {n}" if shared else f"line {i}{n}")
            ax.set_xlabel("layer")
        outside(figure, axes)
        renderer = drawn(figure)
    legends = figure.legends if shared else [ax.get_legend() for ax in axes]
    assert len(legends) == (1 if shared else 2)
    page = figure.bbox
    for legend in legends:
        box = legend.get_window_extent(renderer)
        assert page.x0 <= box.x0 and box.x1 <= page.x1 and page.y0 <= box.y0 and box.y1 <= page.y1
        for ax in axes:
            assert not box.overlaps(ax.get_window_extent(renderer))
            assert not box.overlaps(ax.xaxis.label.get_window_extent(renderer))


def test_a_panel_without_named_lines_gets_no_legend_and_no_warning():
    figure = new_figure(6.5, 2.8)
    axes = figure.subplots(1, 2)
    axes[0].plot([0, 1], [0, 1], label="one")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        outside(figure, axes)
    assert axes[0].get_legend() is not None
    assert axes[1].get_legend() is None
    assert not figure.legends


def test_chance_is_a_line_each_a_band_or_none():
    table = lines_table({"a": 0.2, "b": 0.3})
    panels = {"both": {"A": ["mass", "a"], "B": ["mass", "b"]}}
    dashed = curves(table, panels).axes[0]
    levels = [line.get_ydata()[0] for line in dashed.lines if line.get_linestyle() == "--"]
    assert levels == pytest.approx([20, 30])
    band = curves(table, panels, chance="band").axes[0]
    heights = [(p.get_y(), p.get_height()) for p in band.patches]
    assert heights == [pytest.approx((20, 10))]
    bare = curves(table, panels, chance="none")
    assert len(bare.axes[0].lines) == 2 and not bare.axes[0].patches
    assert all(tick == int(tick) for tick in bare.axes[0].get_xticks())
    with pytest.raises(AtlasError, match=r"chance: 'often' is not one of lines, band, none"):
        curves(table, panels, chance="often")


def test_pruning_of_a_small_sample_has_one_panel_and_no_warning():
    steps = [{"kind": "joint", "measure": "pruned", "condition": order, "setting": str(n), "value": 60.0 - n}
             for order in ("importance", "random") for n in (0, 4, 8)]  # fmt: skip
    table = make_table(steps).assign(ci_low=40.0, ci_high=70.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        alone = pruning(table, ["what", "where"])
        grouped = table.assign(group="where")
        both = pruning(pd.concat([table, grouped]), ["what", "where"])
    assert len(alone.axes) == 1
    assert len(both.axes) == 2
    assert [line.get_label() for line in both.axes[1].lines] == ["where"]
    assert list(both.axes[1].lines[0].get_ydata()) == [60, 56, 52]


def test_numbers_in_cells_have_no_negative_zero_and_leave_cells_that_are_too_narrow():
    values = np.full((LAYERS, 4), -0.001)
    values[0, 0] = -0.25
    wide = heatmaps([Panel(values, "all")], width=6.5, columns=3, label="x", digits=2, tallest=2.9)
    texts = [t.get_text() for t in wide.axes[0].texts]
    assert texts == ["−0.25"] + ["0.00"] * (4 * LAYERS - 1)
    assert wide.get_figheight() == pytest.approx(2.9 + 0.62)
    narrow = [Panel(np.repeat(values, 4, axis=1), str(n)) for n in range(3)]
    figure = heatmaps(narrow, width=6.5, columns=3, label="x", digits=2)
    assert not figure.axes[0].texts
    with style():
        few = heatmaps([Panel(100 * np.abs(values), "%")] * 3, width=6.5, columns=3, label="x")
        renderer = drawn(few)
    cell = few.axes[0].get_window_extent(renderer).width / 4
    assert max(t.get_window_extent(renderer).width for t in few.axes[0].texts) < cell


def test_numbers_of_a_column_have_the_same_decimals_and_no_negative_zero():
    table = lines_table({"image": 0.5})
    table.loc[table["layer"] == 0, "value"] = -0.001
    figure = roles(table, {"%": ["mass", "image", 100], "share": ["mass", "image"]})
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert texts[:4] == ["0", "0.00", "10", "0.10"] and texts[-2:] == ["60", "0.60"]


def test_violins_are_set_against_the_chance_of_their_own_questions(tmp_path):
    values = tmp_path / "distribution.json"
    content = {"schema": "atlas.distribution/2", "groups": ["what", "what", "where", "where"]}
    content["values"] = {"mass": {"text → image": [[0.1, 0.2], [0.3, 0.4], [0.5, 0.6], [0.7, 0.9]]}}
    values.write_text(json.dumps(content), encoding="utf-8")
    table = pd.concat([lines_table({"text → image": 0.25}), lines_table({"text → image": 0.75}, "where")])
    figure = distribution(table, str(values), "mass", "text → image", ["what", "where"], "%")
    spans = [_dashes(ax) for ax in figure.axes]
    assert spans[0] == [pytest.approx((-0.5, 1.5, 25))]  # both layers
    assert spans[1] == [pytest.approx((0.55, 1.45, 75))]  # the second group; the first has no row


def _dashes(ax):
    """(start, end, height) of the horizontal lines that are no part of a violin."""
    from matplotlib.collections import LineCollection

    found = [c.get_segments() for c in ax.collections if isinstance(c, LineCollection)]
    return [(s[0][0], s[1][0], s[0][1]) for segments in found for s in segments]
