"""Curves over layers: the mean of a layer's heads with its interval, and the chance level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.plotting.style import GREY, LINES, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass
class Curve:
    """Values per layer (L,) with their 95 % interval; `heads_LH` are drawn as dots."""

    name: str
    value_L: np.ndarray
    low_L: np.ndarray
    high_L: np.ndarray
    heads_LH: np.ndarray
    chance: float = float("nan")


def curve(rows: pd.DataFrame, name: str, factor: float = 1.0) -> Curve:
    """The curve of one metric, kind and condition: its rows per layer (head = -1) and per head."""
    from attention_atlas.measures.table import head_matrix

    layers = rows[(rows["layer"] >= 0) & (rows["head"] == -1)].sort_values("layer")
    if layers.empty:
        raise AtlasError(f"figure: '{name}': no rows per layer; run the metric for this figure")
    value, low, high = (factor * layers[c].to_numpy() for c in ("value", "ci_low", "ci_high"))
    heads_LH = factor * np.asarray(head_matrix(rows))
    return Curve(name, value, low, high, heads_LH, factor * float(layers["chance"].iloc[0]))


def layer_curves(
    panels: Sequence[tuple[str, Sequence[Curve]]], *, width: float, label: str, note: str = ""
) -> Figure:
    """One panel per (title, curves): mean over heads with its interval, each head as a dot, chance dashed."""
    if not panels:
        raise AtlasError("figure: no panels to draw; name at least one in the YAML")
    figure = new_figure(width, 2.1 + (0.2 if note else 0))
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for ax, (title, curves) in zip(axes, panels, strict=True):
        for i, item in enumerate(curves):
            layers = np.arange(1, len(item.value_L) + 1)
            shift = (i - (len(curves) - 1) / 2) * 0.16
            colour = LINES[i % len(LINES)]
            dots = np.repeat(layers, item.heads_LH.shape[1]) + shift
            ax.plot(dots, item.heads_LH.ravel(), ".", color=colour, alpha=0.5, markersize=4, mew=0)
            errors = np.abs(np.stack([item.value_L - item.low_L, item.high_L - item.value_L]))
            ax.errorbar(
                layers + shift,
                item.value_L,
                yerr=errors,
                color=colour,
                capsize=2,
                elinewidth=1,
                label=item.name,
            )
            if np.isfinite(item.chance):
                ax.axhline(item.chance, color=colour, linestyle=(0, (4, 3)), linewidth=0.9)
        ax.set_title(title)
        ax.set_xlabel("layer")
        ax.set_xticks(range(1, max(len(c.value_L) for c in curves) + 1))
        ax.set_ylim(bottom=0)
        if len(curves) > 1:
            ax.legend(frameon=False)
    axes[0].set_ylabel(label)
    if note:
        figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure
