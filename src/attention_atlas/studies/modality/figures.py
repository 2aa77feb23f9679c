"""Figures 2, 3, 4 and 7 of "How Vision Affects Language" and additional ones, from the metric table alone.

Shares are per cent. Each panel names n; chance is what uniform attention over the visible words would give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import holm
from attention_atlas.measures.table import head_matrix, measured, read_table, rows_of, select
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure, number, p_value
from attention_atlas.studies.modality.perplexity import OTHERS

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KIND = "decoder_self"
MATCHED = 0.1  # two models whose perplexities differ by at most this share predict text equally well
ARROWS = {
    ("det", ""): "noun → determiner",
    ("compound", ""): "noun → compound",
    ("nummod", ""): "noun → numeral",
    ("pobj", ""): "object → preposition",
    ("prep", ""): "preposition → head",
    ("prep", "NOUN"): "preposition → noun",
    ("prep", "VERB"): "preposition → verb",
}


def parts_of_speech(
    table: pd.DataFrame, model: str, tags: Sequence[str], scaled: bool = False, scale: str = "own"
) -> Figure:
    """Figure 2: share of each head's attention that goes to a part of speech. `scaled`: every panel scaled
    linearly to 0..1, as in the paper's method section; else raw per cent, as in its text."""
    panels, n, absent = [], 0, []
    for letter, tag in zip("abcdefgh", tags, strict=False):
        rows = measured(table, measure="pos_mass", kind=KIND, model=model, condition=tag)
        if rows.empty:
            # A few captions of a small test split may lack a tag; the others are still worth drawing.
            absent.append(tag)
            continue
        panels.append(_panel(rows, f"({letter}) {tag}", scaled))
        n = max(n, _count(rows))
    if not panels:
        raise AtlasError(f"no rows with measure = pos_mass, model = {model}; run that metric")
    note = f"n = {n:,} generated words; START left out; frame: highest head"
    note += "; each panel scaled to 0–1" if scaled else "; line on the bar: chance"
    note += f"; absent: {', '.join(absent)}" if absent else ""
    label = "share, scaled" if scaled else "share (%)"
    digits = 2 if scaled else None
    return heatmaps(panels, width=PAGE * 1.12, columns=3, label=label, scale=scale, note=note, digits=digits)


def dependencies(
    table: pd.DataFrame,
    model: str,
    relations: Sequence[str],
    groups: Sequence[str] = ("",),
    scale: str = "own",
) -> Figure:
    """Figures 3 and 4: attention from a generated word to its partner in a dependency. `groups`: parts of
    speech of the head."""
    panels, counts = [], []
    for letter, (relation, group) in zip("abcdefgh", product(relations, groups), strict=False):
        where = {"kind": KIND, "model": model, "condition": relation, "group": group}
        rows = measured(table, measure="dependency", **where)
        name = f"{relation}, {group}" if group else relation
        if rows.empty:
            # A small test split may have no such pair; the other panels are still worth drawing.
            counts.append(f"({letter}) {name} does not occur")
            continue
        panels.append(_panel(rows, f"({letter}) {name}\n{ARROWS.get((relation, group), '')}"))
        counts.append(f"({letter}) {_count(rows):,}")
    if not panels:
        raise AtlasError(f"no rows with measure = dependency, model = {model}; run that metric")
    note = "P (%), generated → attended; pairs: " + ", ".join(counts) + "; line on the bar: chance"
    columns = 3 if len(panels) > 2 else 2
    return heatmaps(panels, width=PAGE * 1.12, columns=columns, label="P (%)", scale=scale, note=note)


def entropies(
    table: pd.DataFrame, models: Mapping[str, str], scale: str = "shared", perplexity: str = ""
) -> Figure:
    """Figure 7: mean normalised entropy of every head. `models`: run -> title. `perplexity`: the table of
    studies/modality/perplexity.py, to say how well each model predicts text, and by how much they differ."""
    panels, counts = [], []
    for letter, (model, title) in zip("abcdefgh", models.items(), strict=False):
        rows = rows_of(table, measure="entropy", kind=KIND, model=model, condition="visible")
        mean = float(select(rows, layer=-1, head=-1)["value"].iloc[0])
        panels.append(Panel(head_matrix(rows), f"({letter}) {title}\nmean {number(mean)}"))
        counts.append(_count(rows))
    note = (
        f"entropy / log(words visible): 0 = one word, 1 = uniform; START left out; n = {max(counts):,} words"
    )
    if perplexity:
        note += "\n" + prediction(read_table(perplexity), models)
    return heatmaps(
        panels,
        width=PAGE * 1.2,
        columns=2,
        label="entropy / max",
        scale=scale,
        digits=2,
        frame=False,
        note=note,
    )


def prediction(perplexity: pd.DataFrame, models: Mapping[str, str]) -> str:
    """How well models predict the reference captions without nouns, and whether all are within MATCHED of the
    best; otherwise attention may differ because one is the better model."""
    found = {}
    for model in models:
        rows = measured(perplexity, measure="perplexity", model=model, condition=OTHERS)
        if rows.empty:
            raise AtlasError(f"no rows with measure = perplexity, model = {model}; run that metric")
        found[model] = float(rows["value"].iloc[0])
    share = max(found.values()) / min(found.values()) - 1
    listed = ", ".join(f"{models[name]} {number(value)}" for name, value in found.items())
    apart = f"{100 * share:.0f} % apart" + (
        " (matched)" if share <= MATCHED else ": NOT MATCHED, part of the contrast may be due to it"
    )
    return f"perplexity on reference captions without nouns: {listed};\n{apart}"


def frequency(table: pd.DataFrame, models: Mapping[str, str], units: Sequence[str]) -> Figure:
    """§5: correlation of noun frequency and attention for each model, per unit, with its interval."""
    figure = new_figure(PAGE, 0.9 + 0.32 * len(models))
    axes = figure.subplots(1, len(units), squeeze=False, sharey=True)[0]
    for ax, unit in zip(axes, units):
        found: list[tuple[float, ...] | None] = []
        for model in models:
            where = {"measure": "noun_frequency", "model": model, "condition": unit}
            rows = measured(table, **where)
            if rows.empty or not np.isfinite(rows["value"].iloc[0]):
                found.append(None)
                continue
            p = rows_of(table, **where, statistic="p")["value"].iloc[0]
            row = rows.iloc[0]
            found.append((row["value"], row["ci_low"], row["ci_high"], p, row["n"]))
        for y, values in enumerate(found):
            if values is None:
                ax.text(0, y, "not defined", va="center", ha="center", color=GREY)
                continue
            r, low, high, p, n = values
            ax.plot([low, high], [y, y], color=LINES[0], linewidth=1.5)
            ax.plot(r, y, "o", color=LINES[0], markersize=4)
            ax.text(
                float(np.clip(r, -0.45, 0.45)),
                y - 0.28,
                f"r = {number(r)}, {p_value(p)}, n = {int(n)}",
                ha="center",
                size=6.5,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )
        ax.axvline(0, color=GREY, linewidth=0.6, zorder=0)
        ax.set_xlim(-1.05, 1.05)
        ax.set_ylim(len(models) - 0.5, -0.7)
        ax.set_yticks(range(len(models)), list(models.values()))
        ax.set_title(f"unit: {unit}")
        ax.set_xticks([-1, -0.5, 0, 0.5, 1], ["−1", "−0.5", "0", "0.5", "1"])
        ax.set_xlabel("Pearson r with noun frequency")
    return figure


def runs(
    table: pd.DataFrame,
    quantities: Sequence[Mapping[str, object]],
    models: Mapping[str, str],
    same_weights: Sequence[str] = (),
) -> Figure:
    """Not in the paper: the same quantities for every run, means over heads with intervals.

    quantities: {title, measure, condition, factor}. same_weights: runs of the same trained model as the first
    run. An asterisk marks those that differ from the first run (paired bootstrap over captions, p < 0.05
    after Holm's correction over the figure). Other models have no marks: each was trained once, so the
    training noise is unknown.
    """
    marked = _marked(table, quantities, next(iter(models)), [m for m in models if m in same_weights])
    figure = new_figure(PAGE * 1.12, 0.75 + 0.26 * len(models))
    axes = figure.subplots(1, len(quantities), squeeze=False, sharey=True)[0]
    first = next(iter(models))
    for ax, quantity in zip(axes, quantities):
        factor = float(str(quantity.get("factor", 1)))
        where = {key: quantity[key] for key in ("measure", "condition")} | {"kind": KIND}
        for y, model in enumerate(models):
            found = measured(table, **where, model=model, layer=-1, head=-1)
            if found.empty or not np.isfinite(found["value"].iloc[0]):
                continue  # e.g. a tag that no caption has
            row = found.iloc[0]
            low, value, high = (factor * row[c] for c in ("ci_low", "value", "ci_high"))
            colour = LINES[0] if model == first else LINES[1]
            ax.plot([low, high], [y, y], color=colour, linewidth=1.5)
            ax.plot(value, y, "o", color=colour, markersize=4)
            if (str(quantity["title"]), model) in marked:
                ax.text(high if np.isfinite(high) else value, y, " *", va="center", size=8)
            if y == 0 and np.isfinite(row["chance"]):
                ax.axvline(factor * row["chance"], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.set_title(str(quantity["title"]), size=7)
        ax.margins(x=0.15)
        ax.set_ylim(len(models) - 0.5, -0.5)
        ax.set_yticks(range(len(models)), list(models.values()))
    figure.supxlabel(
        "mean over heads, 95 % interval over captions; dashed: chance (first row); "
        "*: the same weights differ from the first row (p < 0.05, Holm);\n"
        "other models have no marks: one training run each",
        fontsize=6.5,
        color=GREY,
    )
    return figure


def _marked(
    table: pd.DataFrame, quantities: Sequence[Mapping[str, object]], first: str, models: Sequence[str]
) -> set[tuple[str, str]]:
    """(title of the quantity, run) of the differences from the first run that are significant after Holm's
    correction."""
    found: dict[tuple[str, str], float] = {}
    for quantity in quantities:
        for model in models:
            where = {key: quantity[key] for key in ("measure", "condition")} | {"layer": -1, "head": -1}
            test = measured(table, **where, model=first, against=model, statistic="p")
            if len(test):
                found[str(quantity["title"]), model] = float(test["value"].iloc[0])
    corrected = holm(np.array(list(found.values())))
    return {key for key, p in zip(found, corrected, strict=True) if p < 0.05}


def _panel(rows: pd.DataFrame, title: str, scaled: bool = False) -> Panel:
    values_LH = np.asarray(head_matrix(rows))
    if scaled:
        low, high = np.nanmin(values_LH), np.nanmax(values_LH)
        return Panel((values_LH - low) / (high - low if high > low else 1.0), title)
    return Panel(100 * values_LH, title, 100 * float(rows["chance"].iloc[0]))


def _count(rows: pd.DataFrame) -> int:
    return int(rows["n"].max())
