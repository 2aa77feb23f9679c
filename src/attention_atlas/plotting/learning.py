"""Learning curves: validation results over training steps."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import read_table
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def learning(
    table: pd.DataFrame, history: str, panels: Mapping[str, Mapping[str, Any]], across: int = 3
) -> Figure:
    """One panel for each validated number, one line for each training: its mean over seeds, by alignment.

    history: learning.csv of the study. panels: {title: {measure, models: {name: label}}}; a model whose label
    is "" is grey and not in the legend. Panels with the same models share the legend of the first. across:
    number of panels in a row.
    """
    del table  # the validation results have their own table
    rows = read_table(history)
    count = len(panels)
    across = min(across, count)
    lines = -(-count // across)
    figure = new_figure(PAGE, 2.1 * lines)
    axes = figure.subplots(lines, across, squeeze=False).ravel()
    for ax in axes[count:]:
        ax.remove()
    explained: list[Mapping[str, str]] = []
    for ax, (title, panel) in zip(axes, panels.items()):
        _panel(ax, rows[rows["measure"] == panel["measure"]], panel["models"])
        if not ax.lines:
            raise AtlasError(f"{history}: no rows for '{title}'; correct the figure's YAML")
        if panel["models"] not in explained and any(panel["models"].values()):
            explained.append(panel["models"])
            ax.legend(frameon=False)
        ax.set_title(title)
        ax.set_xlabel("training steps")
    return figure


def _panel(ax: Any, rows: pd.DataFrame, models: Mapping[str, str]) -> None:
    colours = itertools.cycle(LINES)
    for model, label in models.items():
        colour = next(colours) if label else GREY
        found = rows[rows["model"] == model].astype({"setting": int})
        for _, of_one in found.groupby("alignment", sort=False):
            means = of_one.groupby("setting")["value"].mean()
            ax.plot(means.index, means, ".-", color=colour, label=label or "_")
    ax.set_xlim(left=0)
