"""Figures of the layer-wise study about answers: accuracy by type, importance of heads, pruning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import head_matrix, select
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.legends import outside
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure, number, p_value
from attention_atlas.studies.vilt_layers.figures import KIND, MORE, TALLEST, present, rows_of

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def accuracy(
    table: pd.DataFrame, models: Mapping[str, str], groups: Sequence[str], metric: str = "accuracy"
) -> Figure:
    """Bars of official accuracy by group of questions with 95 % intervals. models: {name in the table:
    title}; models missing from the table are left out."""
    rows = select(table, kind="answer", metric=metric)
    shown = [g for g in groups if (rows["condition"] == g).any()]
    if not shown:
        raise AtlasError(f"no '{metric}' of these groups in the table; run vilt_metrics again")
    figure = new_figure(PAGE, 2.5)
    ax = figure.subplots()
    models = {name: title for name, title in models.items() if (rows["model"] == name).any()}
    if not models:
        raise AtlasError(f"no '{metric}' of these models in the table; run vilt_generate for them")
    width = 0.8 / len(models)
    for i, (name, title) in enumerate(models.items()):
        found = select(rows, model=name).set_index("condition").reindex(shown)
        x = np.arange(len(shown)) + (i - (len(models) - 1) / 2) * width
        errors = np.abs([found["value"] - found["ci_low"], found["ci_high"] - found["value"]])
        ax.bar(x, found["value"], width * 0.92, color=LINES[i], label=title)
        ax.errorbar(x, found["value"], yerr=errors, fmt="none", ecolor="black", elinewidth=0.7, capsize=1.2)
    ax.set_xticks(range(len(shown)), shown)
    ax.set_ylabel("accuracy (%)" if metric == "accuracy" else f"{metric} (%)")
    ax.set_ylim(0, 100)
    ax.legend(frameon=False, ncols=len(models), loc="upper center", bbox_to_anchor=(0.5, 1.17))
    return figure


def head_importance(table: pd.DataFrame, groups: Sequence[str] = ()) -> Figure:
    """Heat maps: increase of the loss without each head, over all questions and by group."""
    panels = [Panel(np.asarray(head_matrix(rows_of(table, "importance", "loss"))), "all")]
    for name in groups:
        rows = select(table, kind=KIND, metric="importance", condition=f"loss | {name}")
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
    """Each head's importance against attention statistics {title: [metric, condition, factor]}, with
    Spearman's rank correlation and its p (Holm over all statistics of the table). optional: metrics that may
    be missing; their panels are then left out."""
    statistics = present(table, statistics, optional)
    y_LH = np.asarray(head_matrix(rows_of(table, "importance", "loss")))
    layer_LH = np.broadcast_to(np.arange(1, len(y_LH) + 1)[:, None], y_LH.shape)
    columns = min(4, len(statistics))
    lines = -(-len(statistics) // columns)
    figure = new_figure(PAGE, 1.8 * lines)
    axes = figure.subplots(lines, columns, squeeze=False, sharey=True)
    for i, (title, (metric, condition, *rest)) in enumerate(statistics.items()):
        ax = axes[i // columns, i % columns]
        factor = float(rest[0]) if rest else 1.0
        x_LH = factor * np.asarray(head_matrix(rows_of(table, metric, condition)))
        points = ax.scatter(x_LH, y_LH, c=layer_LH, cmap="viridis_r", s=9, linewidths=0)
        name = f"{metric}: {condition}"
        rho = rows_of(table, "importance correlation", name)["value"].iloc[0]
        p = rows_of(table, "importance correlation p Holm", name)["value"].iloc[0]
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
    figure.supxlabel("heads are judged on other pictures (validation)", fontsize=6.5, color=GREY)
    return figure


def _pruned(table: pd.DataFrame, order: str, group: str) -> tuple[np.ndarray, ...]:
    rows = select(table, kind=KIND, metric="pruned")
    parts = rows["condition"].str.split(" | ", regex=False)
    kept = [p[0] == order and (p[2] if len(p) > 2 else "") == group for p in parts]
    rows = rows[kept].assign(heads=[int(p[1]) for p, k in zip(parts, kept) if k]).sort_values("heads")
    if rows.empty and not group:
        raise AtlasError("no 'pruned' accuracy in the table; run vilt_heads and vilt_metrics again")
    return tuple(rows[c].to_numpy(dtype=float) for c in ("heads", "value", "ci_low", "ci_high"))


def _line(ax: Any, values: tuple[np.ndarray, ...], name: str, colour: str, band: bool = True) -> None:
    x, y, low, high = values
    ax.plot(x, y, color=colour, label=name, marker="o", markersize=2)
    if band:
        ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
