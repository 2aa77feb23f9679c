"""Legends outside the axes: above all panels if these share their lines, else below each panel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

UNDER = 0.36  # inches from the axis to the legend, for tick labels and the axis label
SIZE = 6.5


def outside(figure: Figure, axes: Sequence[Any], columns: int = 3) -> None:
    """Place the legend of these panels outside the axes: one above the figure if all panels have the same
    entries, in one row if they fit; otherwise one below each panel in rows of `columns`. Panels without a
    labelled line get none. Works with the constrained layout, which reserves space for them."""
    from matplotlib.transforms import ScaledTranslation

    entries = [ax.get_legend_handles_labels() for ax in axes]
    named = [(ax, handles, labels) for ax, (handles, labels) in zip(axes, entries) if labels]
    if not named:
        return
    _, handles, labels = named[0]
    if len(axes) > 1 and all(other == labels for _, other in entries):
        figure.legend(handles, labels, loc="outside upper center", ncols=_row(figure, labels), **_looks())
        return
    for ax, handles, labels in named:
        below = ax.transAxes + ScaledTranslation(0, -UNDER, figure.dpi_scale_trans)
        ax.legend(
            *(handles, labels),
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            bbox_transform=below,
            borderaxespad=0,
            ncols=_balanced(len(labels), columns),
            **_looks(),
        )


def _looks() -> dict[str, Any]:
    return {"frameon": False, "fontsize": SIZE, "columnspacing": 1.2, "handlelength": 1.6}


def _row(figure: Figure, labels: Sequence[str]) -> int:
    """How many entries fit in one row: a letter is about 0.6 of the font size wide, a handle with its gaps
    about 5 letters."""
    letter = 0.6 * SIZE / 72
    widest = (max(len(label) for label in labels) + 5) * letter
    return _balanced(len(labels), max(1, int(figure.get_figwidth() / widest)))


def _balanced(many: int, most: int) -> int:
    """Number of columns, at most `most`, for the fewest and most even rows."""
    rows = -(-many // most)
    return -(-many // rows)
