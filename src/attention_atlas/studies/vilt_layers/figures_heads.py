"""Figures of the layer-wise study about answers: accuracy by type, importance of heads, pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import head_matrix, measured, rows_of, select
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.legends import outside
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure, number, p_value
from attention_atlas.studies.vilt_layers.figures import KIND, MORE, TALLEST, chosen, needed, present

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def accuracy(
    table: pd.DataFrame,
    models: Mapping[str, Mapping[str, str]],
    groups: Sequence[str],
    measure: str = "accuracy",
) -> Figure:
    """Bars of official accuracy over all questions and by group, with 95 % intervals. models: {title: columns
    of its rows}; those missing from the table are left out."""
    every = measured(table, kind="answer", measure=measure, group=["", *groups], input=None)
    shown = [g for g in ("", *groups) if (every["group"] == g).any()]
    if not shown:
        raise AtlasError(f"no '{measure}' of these groups in the table; run vilt_metrics again")
    figure = new_figure(PAGE, 2.5)
    ax = figure.subplots()
    rows = {title: select(every, **{"input": "", "condition": ""} | dict(of)) for title, of in models.items()}
    rows = {title: found for title, found in rows.items() if len(found)}
    if not rows:
        raise AtlasError(f"no '{measure}' of these models in the table; run vilt_generate for them")
    width = 0.8 / len(rows)
    for i, (title, found) in enumerate(rows.items()):
        found = found.set_index("group").reindex(shown)
        x = np.arange(len(shown)) + (i - (len(rows) - 1) / 2) * width
        errors = np.abs([found["value"] - found["ci_low"], found["ci_high"] - found["value"]])
        ax.bar(x, found["value"], width * 0.92, color=LINES[i], label=title)
        ax.errorbar(x, found["value"], yerr=errors, fmt="none", ecolor="black", elinewidth=0.7, capsize=1.2)
    ax.set_xticks(range(len(shown)), [name or "all" for name in shown])
    ax.set_ylabel(f"{measure} (%)")
    ax.set_ylim(0, 100)
    ax.legend(frameon=False, ncols=len(rows), loc="upper center", bbox_to_anchor=(0.5, 1.17))
    return figure


def head_importance(table: pd.DataFrame, groups: Sequence[str] = ()) -> Figure:
    """Heat maps: increase of the loss without each head, over all questions and by group."""
    panels = [Panel(np.asarray(head_matrix(needed(table, "importance", "loss"))), "all")]
    for name in groups:
        rows = chosen(table, "importance", "loss", name)
        if not rows.empty:
            panels.append(Panel(np.asarray(head_matrix(rows)), name))
    return heatmaps(
        panels,
        width=PAGE,
        columns=3,
        label="rise of the loss",
        digits=2,
        note="frame: the head that matters most; each panel has its own scale",
        tallest=TALLEST,
    )


def against(
    table: pd.DataFrame, statistics: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> Figure:
    """Each head's importance against attention statistics {title: [measure, condition, factor]}, with
    Spearman's rank correlation and its p (Holm over all statistics of the table). optional: measures that may
    be missing; their panels are then left out."""
    statistics = present(table, statistics, optional)
    y_LH = np.asarray(head_matrix(needed(table, "importance", "loss")))
    layer_LH = np.broadcast_to(np.arange(1, len(y_LH) + 1)[:, None], y_LH.shape)
    columns = min(4, len(statistics))
    lines = -(-len(statistics) // columns)
    figure = new_figure(PAGE, 1.8 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for i, (title, (measure, condition, *rest)) in enumerate(statistics.items()):
        ax = axes[i // columns, i % columns]
        factor = float(rest[0]) if rest else 1.0
        x_LH = factor * np.asarray(head_matrix(needed(table, measure, condition)))
        points = ax.scatter(x_LH, y_LH, c=layer_LH, cmap="viridis_r", s=9, linewidths=0)
        where = {"kind": "importance correlation", "measure": measure, "condition": condition}
        rho, p = (rows_of(table, **where, statistic=s)["value"].iloc[0] for s in ("", "p Holm"))
        ax.set_title(f"ρ = {number(float(rho))}, {p_value(float(p))}", fontsize=7)
        ax.set_xlabel(title)
        if i % columns == 0:
            ax.set_ylabel("rise of the loss")
    for ax in axes.ravel()[len(statistics) :]:
        ax.set_visible(False)
    figure.colorbar(points, ax=list(axes.ravel()), pad=0.02, fraction=0.03).set_label("layer")
    note = "a dot: a head; ρ: Spearman; p: corrected for the number of statistics"
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def pruning(table: pd.DataFrame, groups: Sequence[str]) -> Figure:
    """Accuracy as more heads are silenced: least important first, in random order, and by group."""
    lines = {name: _pruned(table, "importance", name) for name in groups}
    lines = {name: values for name, values in lines.items() if len(values[0])}
    figure = new_figure(PAGE, 2.9)
    # In small samples no group has enough questions for the second panel.
    axes = figure.subplots(1, 2 if lines else 1, sharey=True, squeeze=False)[0]
    left = axes[0]
    for i, (order, title) in enumerate((("importance", "least important first"), ("random", "random order"))):
        _line(left, _pruned(table, order, ""), title, LINES[i])
    for name, values in lines.items():
        _line(axes[1], values, name, MORE[list(groups).index(name) % len(MORE)], band=False)
        axes[1].set_title("by type, least important first")
    left.set_title("all questions")
    left.set_ylabel("accuracy (%)")
    for ax in axes:
        ax.set_xlabel("heads silenced")
        ax.set_ylim(bottom=0)
    outside(figure, axes, columns=5)
    figure.supxlabel("heads are judged on other images (validation)", fontsize=6.5, color=GREY)
    return figure


def _pruned(table: pd.DataFrame, order: str, group: str) -> tuple[np.ndarray, ...]:
    where = {"kind": KIND, "measure": "pruned", "condition": order, "group": group}
    rows = measured(table, **where, setting=None)
    rows = rows.assign(heads=rows["setting"].astype(int)).sort_values("heads")
    if rows.empty and not group:
        raise AtlasError("no 'pruned' accuracy in the table; run vilt_heads and vilt_metrics again")
    return tuple(rows[c].to_numpy(dtype=float) for c in ("heads", "value", "ci_low", "ci_high"))


def _line(ax: Any, values: tuple[np.ndarray, ...], name: str, colour: str, band: bool = True) -> None:
    x, y, low, high = values
    ax.plot(x, y, color=colour, label=name, marker="o", markersize=2)
    if band:
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
