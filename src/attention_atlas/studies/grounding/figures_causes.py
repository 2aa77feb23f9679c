"""Not in the paper: grounding by cause, from the metric table alone. See grounding.py for the measures.

Values are per cent. Panels whose rows are not in the table (no gold links, no probabilities) are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.measures.table import measured, rows_of
from attention_atlas.plotting.curves import Curve, curve
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure
from attention_atlas.studies.grounding.grounding import CHANCE, GOLD, LINKABLE

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"": "linker's\nlinks", LINKABLE: "… phrases\nwith a region", GOLD: "gold\nlinks"}
SERIES = {"": "linker's links", LINKABLE: "linker's links, phrases with a region", GOLD: "gold links"}
COLOURS = dict(zip(SERIES, LINES, strict=False))
HELD_OUT = "grounding_held_out"


def by_cause(table: pd.DataFrame, kind: str = "cross", condition: str = "phrases") -> Figure:
    """(a) The head chosen on other images and the mean of all heads, by links; (b) the chosen head by the
    probability that the model gave the head word of the phrase; (c) the mean of each layer, by links."""
    rows = table[table["kind"] == kind]
    everything = rows_of(rows, measure="grounding", condition=condition, setting=None, group=None)
    settings = [s for s in SERIES if s in set(everything["setting"])]
    groups = [g for g in dict.fromkeys(everything["group"]) if g]
    figure = new_figure(PAGE * 1.1, 2.9)
    axes = figure.subplots(1, 3 if groups else 2)
    links, layers = axes[0], axes[-1]
    _by_links(links, rows, condition, settings)
    if groups:
        _by_probability(axes[1], rows, condition, settings, groups)
    for setting in settings:
        where = {"measure": "grounding", "condition": condition, "setting": setting}
        _layer_means(layers, curve(rows_of(rows, **where), SERIES[setting], 100.0), COLOURS[setting])
    titles = ["by links", *(["by probability of the noun"] if groups else []), "mean of each layer's heads"]
    for letter, title, ax in zip("abc", titles, axes, strict=False):
        ax.set_title(f"({letter}) {title}")
        ax.set_ylim(bottom=0)
    links.set_ylabel("P (%)")
    figure.legend(*layers.get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    note = (
        "filled: head chosen on one half of the images and measured on the other; hollow: mean of all heads"
    )
    note += "\ngrey and dashed: chance, uniform; dotted: by area; bars: 95 % intervals over images"
    if GOLD not in settings:
        note += "\nno gold links of these texts"
    if not groups:
        note += "\nno panel by probability: attention.h5 has no probabilities of the words"
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def _by_links(ax: Axes, rows: pd.DataFrame, condition: str, settings: Sequence[str]) -> None:
    names = []
    for x, setting in enumerate(settings):
        where = {"setting": setting, "condition": condition}
        held, mean = (_overall(rows, where | {"measure": m}) for m in (HELD_OUT, "grounding"))
        _point(ax, x - 0.12, held, COLOURS[setting])
        _point(ax, x + 0.12, mean, COLOURS[setting], hollow=True)
        _chance(ax, x, 0.3, rows, setting, "", GREY)
        names.append(f"{LABELS[setting]}\nn = {0 if mean is None else int(mean['n']):,}")
    ax.set_xticks(range(len(settings)), names)
    ax.set_xlim(-0.6, len(settings) - 0.4)


def _by_probability(
    ax: Axes, rows: pd.DataFrame, condition: str, settings: Sequence[str], groups: Sequence[str]
) -> None:
    """With gold links, both series are of the same phrases."""
    shown = [s for s in settings if s] or settings
    names = []
    for x, group in enumerate(groups):
        for i, setting in enumerate(shown):
            at = x + (i - (len(shown) - 1) / 2) * 0.3
            where = {"measure": HELD_OUT, "condition": condition, "setting": setting, "group": group}
            row = _overall(rows, where)
            if row is not None:
                _point(ax, at, row, COLOURS[setting])
                _chance(ax, at, 0.13, rows, setting, group, GREY)
        counted = measured(rows, measure="grounding", condition=condition, setting=shown[-1], group=group)
        names.append(f"{group.replace(' ', '')}\nn = {int(counted['n'].max()) if len(counted) else 0:,}")
    ax.set_xticks(range(len(groups)), names)
    ax.set_xlim(-0.6, len(groups) - 0.4)


def _layer_means(ax: Axes, item: Curve, colour: str) -> None:
    layers = np.arange(1, len(item.value_L) + 1)
    errors = np.abs(np.stack([item.value_L - item.low_L, item.high_L - item.value_L]))
    ax.errorbar(layers, item.value_L, yerr=errors, color=colour, capsize=2, elinewidth=1, label=item.name)
    ax.axhline(item.chance, color=colour, linestyle=(0, (4, 3)), linewidth=0.9)
    ax.set_xticks(layers)
    ax.set_xlabel("layer")


def _overall(rows: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series | None:
    """The row over all layers and heads; None where a half of the images has no such phrase."""
    found = measured(rows, layer=-1, head=-1, **where)
    return None if found.empty else found.iloc[0]


def _point(ax: Axes, x: float, row: pd.Series | None, colour: str, hollow: bool = False) -> None:
    if row is None:
        return
    value, low, high = (100 * float(row[c]) for c in ("value", "ci_low", "ci_high"))
    errors = np.abs([[value - low], [high - value]])
    face = "white" if hollow else colour
    ax.errorbar([x], [value], yerr=errors, fmt="o", ms=4.5, color=colour, mfc=face, capsize=2, elinewidth=1)


def _chance(
    ax: Axes, x: float, half: float, rows: pd.DataFrame, setting: str, group: str, colour: str
) -> None:
    for condition, dashes in (("uniform", "-"), ("area", ":")):
        row = _overall(rows, {"measure": CHANCE, "condition": condition, "setting": setting, "group": group})
        if row is not None:
            ax.hlines(100 * row["value"], x - half, x + half, color=colour, linestyle=dashes, linewidth=1.1)
