"""Figures of the layer-wise study from the metric table: curves over layers, heat maps, roles of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.measures.table import head_matrix, measured, rows_of
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.legends import outside
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KIND = "joint"
MORE = (*LINES, "#000000", "#8c6d31", "#7f7f7f")
STARS = 0.05
CHANCES = ("lines", "band", "none")
TALLEST = 2.9  # inches of a heat map, so that two rows of them fit a page
MARKS = "frame: highest head; line on the bar: attention spread evenly"


def chosen(table: pd.DataFrame, measure: str, condition: str, group: str = "") -> pd.DataFrame:
    """The rows of one measure."""
    return measured(table, kind=KIND, measure=measure, condition=condition, group=group)


def needed(table: pd.DataFrame, measure: str, condition: str) -> pd.DataFrame:
    """The rows of one measure over all questions. Raises AtlasError if there are none."""
    return rows_of(table, kind=KIND, measure=measure, condition=condition)


def by_layer(rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """(L,) value, lower and upper limit, and chance."""
    found = rows[(rows["layer"] >= 0) & (rows["head"] == -1)].sort_values("layer")
    value, low, high = (found[c].to_numpy(dtype=float) for c in ("value", "ci_low", "ci_high"))
    return value, low, high, float(found["chance"].iloc[0])


def curves(
    table: pd.DataFrame,
    panels: Mapping[str, Mapping[str, Sequence[str]]],
    label: str = "share of attention (%)",
    factor: float = 100.0,
    chance: str = "lines",
    note: str = "attention spread evenly over all tokens",
) -> Figure:
    """panels: {title: {name of a line: [measure, condition, group]}}. Mean over heads by layer with its 95 %
    interval. Lines without rows (too few questions) are left out; a panel needs at least one.

    chance: lines (dashed, in the colour of its line), band (grey, from the lowest to the highest of the
    panel) or none; `note` describes it.
    """
    from matplotlib.ticker import MaxNLocator

    if chance not in CHANCES:
        raise AtlasError(f"chance: '{chance}' is not one of {', '.join(CHANCES)}; correct the YAML")
    figure = new_figure(PAGE, 2.8)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, lines) in zip(axes, panels.items()):
        levels = []
        for i, (name, line) in enumerate(lines.items()):
            rows = chosen(table, *line)
            if rows.empty:
                continue
            value, low, high, level = by_layer(rows)
            levels.append(factor * level)
            layers, colour = np.arange(1, len(value) + 1), MORE[i % len(MORE)]
            ax.plot(layers, factor * value, color=colour, label=name, marker="o", markersize=2)
            ax.fill_between(layers, factor * low, factor * high, color=colour, alpha=0.15, linewidth=0)
            if chance == "lines" and np.isfinite(level):
                ax.axhline(factor * level, color=colour, linestyle=(0, (4, 3)), linewidth=0.8)
        if not levels:
            raise AtlasError(f"panel '{title}': none of its lines is in the table; run vilt_metrics again")
        if chance == "band" and np.isfinite(levels).any():
            _chance_band(ax, np.nanmin(levels), np.nanmax(levels))
        ax.set_title(title)
        ax.set_xlabel("layer")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(bottom=0)
    axes[0].set_ylabel(label)
    outside(figure, axes)
    if chance != "none":
        mark = "dashed: {}" if chance == "lines" else "grey: {} (range over the lines)"
        figure.supxlabel(mark.format(note), fontsize=6.5, color=GREY)
    return figure


def _chance_band(ax: Any, low: float, high: float) -> None:
    ax.axhspan(low, high, facecolor="#bbbbbb", edgecolor="#999999", linewidth=0.6, alpha=0.5, zorder=0)


def maps(
    table: pd.DataFrame,
    panels: Mapping[str, Sequence[str]],
    label: str = "share of attention (%)",
    factor: float = 100.0,
    scale: str = "own",
    columns: int = 3,
    note: str = MARKS,
) -> Figure:
    """Head × layer heat maps. panels: {title: [measure, condition, group]}; missing ones are left out."""
    drawn = []
    for title, panel in panels.items():
        rows = chosen(table, *panel)
        if not rows.empty:
            chance = float(rows["chance"].iloc[0])
            drawn.append(Panel(factor * np.asarray(head_matrix(rows)), title, factor * chance))
    return heatmaps(drawn, width=PAGE, columns=columns, label=label, scale=scale, note=note, tallest=TALLEST)


def differences(
    table: pd.DataFrame, measure: str, condition: str, groups: Sequence[str], factor: float = 100.0
) -> Figure:
    """Difference between each group of questions and all others, head by layer; a dot marks p < 0.05 after
    Holm's correction over the heads (permutation test)."""
    found = []
    for name in groups:
        against = "wrong" if name == "right" else "others"
        where = {"kind": KIND, "measure": measure, "condition": condition, "group": name, "against": against}
        rows = measured(table, **where)
        if not rows.empty:
            p = measured(table, **where, statistic="p Holm")
            found.append((f"{name} − {against}", factor * head_matrix(rows), head_matrix(p)))
    if not found:
        raise AtlasError(f"no difference of '{measure}', '{condition}' in the table; run vilt_metrics again")
    columns = min(5, len(found))
    lines = -(-len(found) // columns)
    figure = new_figure(PAGE, 1.75 * lines + 0.4)
    axes = figure.subplots(lines, columns, squeeze=False)
    most = max(np.abs(values).max() for _, values, _ in found)
    for i, (title, values, p) in enumerate(found):
        ax = axes[i // columns, i % columns]
        image = ax.imshow(
            values, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto", interpolation="nearest"
        )
        for layer, head in np.argwhere(p < STARS):
            ax.plot(head, layer, ".", color="black", markersize=3)
        ax.set_title(title, fontsize=7)
        ax.set_xticks(range(values.shape[1]), [str(h + 1) for h in range(values.shape[1])])
        ax.set_yticks(range(values.shape[0]), [str(n + 1) for n in range(values.shape[0])], fontsize=5.5)
        ax.tick_params(length=0, pad=2)
        if i % columns == 0:
            ax.set_ylabel("layer")
        if i + columns >= len(found):
            ax.set_xlabel("head")
    for ax in axes.ravel()[len(found) :]:
        ax.set_visible(False)
    bar = figure.colorbar(image, ax=list(axes.ravel()), pad=0.02, fraction=0.04)
    bar.set_label(f"{condition}, difference (points)")
    figure.supxlabel("dot: p < 0.05, corrected for the number of heads", fontsize=6.5, color=GREY)
    return figure


def distribution(
    table: pd.DataFrame,
    values: str,
    measure: str,
    condition: str,
    groups: Sequence[str],
    label: str,
    factor: float = 100.0,
) -> Figure:
    """Violins of the distribution over questions, by layer (all questions) and by group (mean over layers).

    values: path of distribution.json.
    """
    import seaborn

    content = read_json(values, schema="atlas.distribution/2")
    known = content["values"].get(measure, {})
    if condition not in known:
        raise AtlasError(f"{values}: no '{condition}' of '{measure}'; known: {', '.join(known) or 'none'}")
    value_NL = factor * np.array(known[condition], dtype=float)
    names = np.array(content["groups"])
    kept = ~np.isnan(value_NL).any(1)
    value_NL, names = value_NL[kept], names[kept]
    figure = new_figure(PAGE, 2.4)
    left, right = figure.subplots(1, 2, width_ratios=[1.3, 1])
    layers = [str(n + 1) for n in range(value_NL.shape[1])]
    long = {"layer": np.tile(layers, len(value_NL)), "value": value_NL.ravel()}
    style = {"linewidth": 0.6, "inner": "quart", "cut": 0, "density_norm": "width"}
    seaborn.violinplot(x=long["layer"], y=long["value"], order=layers, color=LINES[4], ax=left, **style)
    shown = [g for g in groups if (names == g).sum() > 1]
    drawn = np.isin(names, shown)
    seaborn.violinplot(
        x=names[drawn], y=value_NL[drawn].mean(1), order=shown, color=LINES[5], ax=right, **style
    )
    left.set_xlabel("layer")
    right.set_xlabel("")
    for text in right.get_xticklabels():
        text.set(rotation=40, ha="right", rotation_mode="anchor")
    left.set_ylabel(label)
    left.set_title("all questions, by layer")
    right.set_title("mean over layers, by type")
    marks = [(left, -0.5, len(layers) - 0.5, "")]
    marks += [(right, n - 0.45, n + 0.45, group) for n, group in enumerate(shown)]
    marked = [
        _mark_chance(ax, chosen(table, measure, condition, group), factor, (x1, x2))
        for ax, x1, x2, group in marks
    ]
    if any(marked):
        note = "dashed: attention spread evenly; in the violins: median and quartiles"
        figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def _mark_chance(ax: Any, rows: pd.DataFrame, factor: float, span: tuple[float, float]) -> bool:
    """A dashed line at the chance of the rows, from span[0] to span[1]; False if there is none."""
    if rows.empty or not np.isfinite(rows["chance"].iloc[0]):
        return False
    ax.hlines(
        factor * float(rows["chance"].iloc[0]), *span, color="black", linestyle=(0, (3, 2)), linewidth=0.8
    )
    return True


def present(
    table: pd.DataFrame, quantities: Mapping[str, Sequence[Any]], optional: Sequence[str]
) -> dict[str, Sequence[Any]]:
    """{title: [measure, ...]} without optional measures that have no row in the table."""
    known = set(table["measure"])
    return {title: of for title, of in quantities.items() if of[0] in known or of[0] not in optional}


def roles(
    table: pd.DataFrame, quantities: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> Figure:
    """Roles of layers: one row per layer, one column per quantity {title: [measure, condition]}; numbers are
    means over heads, shades compare layers within a column. optional: measures that may be missing; their
    columns are then left out."""
    from matplotlib import colormaps

    columns = {}
    for title, (measure, condition, *rest) in present(table, quantities, optional).items():
        factor = float(rest[0]) if rest else 1.0
        columns[title] = factor * by_layer(needed(table, measure, condition))[0]
    values = np.stack(list(columns.values()), 1)
    low, high = values.min(0), values.max(0)
    shade = (values - low) / np.where(high > low, high - low, 1)
    figure = new_figure(PAGE, 0.2 * len(values) + 0.7)
    ax = figure.subplots()
    ax.imshow(shade, cmap="YlGnBu", aspect="auto", vmin=0, vmax=1.15)
    for (layer, column), value in np.ndenumerate(values):
        red, green, blue, _ = colormaps["YlGnBu"](shade[layer, column] / 1.15)
        dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
        decimals = 2 if high[column] < 9.995 else 0  # the same in a column
        ax.text(
            column,
            layer,
            f"{round(value, decimals) + 0.0:.{decimals}f}".replace("-", "−"),
            ha="center",
            va="center",
            fontsize=6.5,
            color="white" if dark else "black",
        )
    ax.set_xticks(range(len(columns)), list(columns))
    ax.xaxis.tick_top()
    ax.set_yticks(range(len(values)), [f"layer {n + 1}" for n in range(len(values))])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return figure
