"""Figures of the alignment study by group of examples, by seed, and of grounding against performance."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import measured, rows_of, select
from attention_atlas.plotting.style import GREY, LINES, PAGE, interval, new_figure, number, p_value
from attention_atlas.studies.alignment.figures import by_alignment

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def best_and_worst(table: pd.DataFrame, model: str, data: str, score: str, lower: bool = False) -> list[str]:
    """The alignments with the highest and the lowest mean (reversed if less is better)."""
    where = {"model": model, "data": data, "kind": "score", "measure": score}
    values = by_alignment(rows_of(table, **where, alignment=None))
    order = sorted(values, key=lambda name: values[name] if lower else -values[name])
    return [order[0], order[-1]]


def breakdown(
    table: pd.DataFrame,
    model: str,
    data: str,
    measures: Mapping[str, str],
    condition: str,
    score: str,
    titles: Mapping[str, str],
    most: int = 12,
    label: str = "",
    factor: float = 1.0,
    lower: bool = False,
) -> Figure:
    """Figs. 1 and 2: a score of the best and the worst alignment (by `score`) for each group, with 95 %
    intervals; in brackets the number of examples. condition: what examples are grouped by. measures: name in
    the table -> title of its panel. Only the `most` frequent groups. Other alignments in grey."""
    pair = best_and_worst(table, model, data, score, lower)
    figure = new_figure(PAGE, 2.05 * len(measures) + 0.2)
    axes = figure.subplots(len(measures), 1, squeeze=False)[:, 0]
    for ax, (measure, title) in zip(axes, measures.items(), strict=True):
        where = {"model": model, "data": data, "kind": "breakdown", "condition": condition}
        found = select(table, **where, measure=measure)
        if found.empty:
            raise AtlasError(f"no rows of '{measure}' by '{condition}'; correct the figure's YAML")
        members = list(dict.fromkeys(found["group"]))[:most]
        for name, part in found.groupby("alignment", sort=False):
            part = part.set_index("group").reindex(members)
            if name not in pair:
                ax.plot(range(len(members)), factor * part["value"], "_", color="#999999", markersize=5)
                continue
            side = pair.index(str(name))
            place = np.arange(len(members)) + (-0.24 if side == 0 else 0.24)
            value = factor * part["value"].to_numpy()
            error = factor * np.abs(part[["ci_low", "ci_high"]].to_numpy().T - part["value"].to_numpy())
            role = "best" if side == 0 else "worst"
            ax.bar(place, value, 0.34, color=LINES[side], label=f"{titles.get(str(name), name)} ({role})")
            # A bar without an interval gets no error bar, instead of one of width 0.
            ax.errorbar(place, value, error, fmt="none", ecolor="black", linewidth=0.7)
        counts = found.drop_duplicates("group").set_index("group")["n"]
        names = [f"{m}\n({int(counts[m]):,})" for m in members]
        turned = len(members) > 9 and max(len(m) for m in members) > 6
        turn: Any = {"rotation": 30, "ha": "right"} if turned else {}
        ax.set_xticks(range(len(members)), names, **turn)
        ax.set_ylabel(label or measure)
        ax.set_title(title)
        ax.plot([], [], "_", color="#999999", markersize=7, label="the other alignments")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    return figure


def seeds(
    table: pd.DataFrame,
    panels: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    columns: int = 3,
) -> Figure:
    """Every seed of every alignment, with mean and interval, to show what is within noise. panels:
    title -> {model, data, measure, factor}. Dotted: chance, which may differ between rows."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(PAGE, 2.1 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharey=True)
    names = [n for n in titles if n in set(select(table, kind="score")["alignment"])]
    for ax, (title, entry) in zip(axes.ravel(), panels.items()):
        where = {k: entry[k] for k in ("model", "data", "measure")} | {"kind": "score", "statistic": ""}
        factor = float(entry.get("factor", 1))
        found = rows_of(table, **where, alignment=None).set_index("alignment")
        single = select(table, **where)
        single = single[single["seed"] != ""]
        for y, name in enumerate(names):
            if name not in found.index:
                continue
            row = found.loc[name]
            ends = [factor * row["ci_low"], factor * row["ci_high"]]
            ax.plot(ends, [y, y], color=LINES[0], linewidth=1.4)
            ax.plot(factor * row["value"], y, "o", color=LINES[0], markersize=3.4)
            dots = [factor * v for v in single.loc[single["alignment"] == name, "value"]]
            if len(dots) > 1:
                ax.plot(dots, [y + 0.28] * len(dots), "|", color=LINES[1], markersize=5)
            chance = [factor * row["chance"]] * 2
            ax.plot(chance, [y - 0.5, y + 0.5], color=GREY, linewidth=0.7, linestyle=":")
        ax.set_title(title)
        ax.set_xlabel(str(entry.get("label", entry["measure"])))
    axes[0, 0].set_yticks(range(len(names)), [titles[n] for n in names])
    axes[0, 0].set_ylim(len(names) - 0.3, -0.7)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    figure.supxlabel(
        "● mean and 95 % interval over test images, | single seeds, dotted: chance",
        fontsize=6.5,
        color=GREY,
    )
    return figure


def grounding(
    table: pd.DataFrame,
    panels: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    measure: str = "mass",
) -> Figure:
    """Share of attention on the region that a word refers to, by alignment, with chance, drawn by
    `seeds`."""
    chosen = {
        title: {
            "model": e["model"],
            "data": e["data"],
            "measure": measure,
            "factor": 100 if measure != "mass over chance" else 1,
            "label": "on the right region (%)" if measure == "mass" else measure,
        }
        for title, e in panels.items()
    }
    renamed = table[table["kind"] == "grounding"].assign(kind="score")
    return seeds(renamed, chosen, titles)


def correlation(
    table: pd.DataFrame,
    panels: Mapping[str, Mapping[str, Any]],
    titles: Mapping[str, str],
    measure: str = "mass",
    columns: int = 3,
) -> Figure:
    """Grounding against performance, one dot per alignment, with Spearman's rho, its p and interval."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(PAGE, 2.3 * rows + 0.25)
    axes = figure.subplots(rows, columns, squeeze=False)
    names = list(titles)
    seen = set()
    for ax, (title, entry) in zip(axes.ravel(), panels.items()):
        where = {"model": entry["model"], "data": entry["data"]}
        every = where | {"alignment": None}
        score = by_alignment(measured(table, **every, kind="score", measure=entry["measure"]))
        share = by_alignment(measured(table, **every, kind="grounding", measure=measure))
        if not share or not score:
            raise AtlasError(f"no grounding of {entry['model']} on {entry['data']}; leave its panel out")
        factor = float(entry.get("factor", 1))
        for i, name in enumerate(names):
            if name in score and name in share:
                seen.add(name)
                ax.plot(100 * share[name], factor * score[name], **_look(i))
        keys = {**where, "kind": "grounding correlation", "measure": entry["measure"], "condition": measure}
        rho = select(table, **keys, statistic="")
        text = ""
        if len(rho) and np.isfinite(rho["value"].iloc[0]):
            row, p = rho.iloc[0], float(select(table, **keys, statistic="p")["value"].iloc[0])
            text = f"ρ = {number(row['value'])}, {p_value(p)}, n = {int(row['n'])}"
            text += f"\n95 %: {interval(row['ci_low'], row['ci_high'])}"
        ax.set_title(f"{title}\n{text}" if text else title, fontsize=7)
        ax.set_xlabel("on the right region (%)")
        ax.set_ylabel(str(entry.get("label", entry["measure"])))
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=titles[n], **_look(i)) for i, n in enumerate(names) if n in seen]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=6.5)
    return figure


def _look(i: int) -> dict[str, Any]:
    """Marker of the i-th alignment: hollow, so that overlapping markers stay visible."""
    marks = "os^Dvp*X"
    return {
        "linestyle": "",
        "marker": marks[i % len(marks)],
        "color": LINES[i % len(LINES)],
        "markerfacecolor": "none",
        "markersize": 5 + i % 2,
    }
