"""Heat maps of layers by heads: rows are layers, the first on top; columns are heads; both count from 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.plotting.style import GREY, SEQUENTIAL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARK = "#D55E00"
SMALLEST = 4.5  # points; below it a number is not drawn
SCALES = ("own", "shared", "full")


@dataclass
class Panel:
    """One heat map. `values_LH` is drawn unscaled; `chance` is a solid line on the colour bar,
    `other_chance` a dashed one."""

    values_LH: np.ndarray
    title: str
    chance: float = float("nan")
    other_chance: float = float("nan")


def heatmaps(
    panels: Sequence[Panel],
    *,
    width: float,
    columns: int,
    label: str,
    scale: str = "own",
    digits: int | None = None,
    frame: bool = True,
    note: str = "",
    tallest: float = float("inf"),
) -> Figure:
    """A figure of heat maps with a value in each cell.

    `scale`: own (each panel its own range), shared (one range and one colour bar), or full (0 to 1 or 100).
    `label` names the quantity on the colour bars. `digits`: decimal places; None: 1 if every value is below
    10, else 0. `frame` marks the highest head of each panel. `note` is printed under the figure. `tallest`:
    maximum height of a panel in inches, for models with many layers. Numbers too wide for their cells get a
    smaller font, and are omitted below 4.5 points; the colours stay. Raises AtlasError for an unknown scale,
    no panels, or a panel without a finite value.
    """
    if scale not in SCALES:
        raise AtlasError(f"figure: scale: '{scale}' is not one of {', '.join(SCALES)}; correct the YAML")
    if not panels:
        raise AtlasError("figure: no panels to draw; name at least one in the YAML")
    for panel in panels:
        if not np.isfinite(panel.values_LH).any():
            raise AtlasError(f"figure: panel '{panel.title}': has no finite value; check the metric table")
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    layers, heads = panels[0].values_LH.shape
    small = columns > 2
    bar_space = 0.42 if scale != "shared" else 0.1
    cell = (width / columns - 0.35 - bar_space) / heads
    # Cells are slightly wider than high, but high enough that the number does not touch the edges.
    cell_height = float(np.clip(cell * 0.85, 0.155, 0.34))
    cell_height = max(0.155, min(cell_height, tallest / layers))
    figure = new_figure(width, rows * (layers * cell_height + 0.62) + (0.2 if note else 0))
    axes = figure.subplots(rows, columns, squeeze=False)
    every = np.concatenate([p.values_LH.ravel() for p in panels])
    for i, panel in enumerate(panels):
        ax = axes[i // columns, i % columns]
        low, high = _range(panel.values_LH if scale == "own" else every, scale)
        image = _draw(ax, panel, low, high, digits, 5.5 if small else 6.5, cell)
        if frame:
            _frame(ax, panel.values_LH)
        if i % columns == 0:
            ax.set_ylabel("layer")
        if i // columns == rows - 1:
            ax.set_xlabel("head")
        if scale != "shared":
            _bar(figure, image, [ax], [panel], label if (i + 1) % columns == 0 else "")
        elif i == len(panels) - 1:
            _bar(figure, image, list(axes.ravel()), panels, label)
    for ax in axes.ravel()[len(panels) :]:
        ax.set_visible(False)
    if note:
        figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def _range(values: np.ndarray, scale: str) -> tuple[float, float]:
    high = float(np.nanmax(values))
    if scale == "full":
        return 0.0, 1.0 if high <= 1 else 100.0
    low = float(np.nanmin(values))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _frame(ax: Any, values_LH: np.ndarray) -> None:
    from matplotlib.patches import Rectangle

    layer, head = np.unravel_index(np.nanargmax(values_LH), values_LH.shape)
    corner = (head - 0.5, layer - 0.5)
    ax.add_patch(Rectangle(corner, 1, 1, fill=False, edgecolor=MARK, linewidth=1.2, zorder=3))


def _written(value: float, digits: int) -> str:
    """A value for its cell: a true minus sign, and none before a zero."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")


def _draw(
    ax: Any, panel: Panel, low: float, high: float, digits: int | None, size: float, cell: float
) -> Any:
    from matplotlib import colormaps

    cmap = colormaps[SEQUENTIAL]
    values_LH = panel.values_LH
    if digits is None:
        digits = 1 if np.nanmax(np.abs(values_LH)) < 9.95 else 0
    image = ax.imshow(values_LH, cmap=cmap, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    longest = max(len(_written(float(v), digits)) for v in values_LH[np.isfinite(values_LH)])
    # A digit of this font is 0.64 of the font size wide, the point half of that; `cell` is a low estimate.
    needed = (longest - (0.5 if digits else 0)) * 0.64 * size / 72
    size = min(size, size * 1.15 * cell / needed)
    for layer, head in np.ndindex(values_LH.shape):
        value = float(values_LH[layer, head])
        if size >= SMALLEST and np.isfinite(value):
            red, green, blue, _ = cmap((value - low) / (high - low))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
            ax.text(
                *(head, layer, _written(value, digits)),
                ha="center",
                va="center",
                size=size,
                color="white" if dark else "black",
            )
    ax.set_title(panel.title, pad=4)
    layers, heads = values_LH.shape
    ax.set_xticks(range(heads), [str(h + 1) for h in range(heads)])
    ax.set_yticks(range(layers), [str(n + 1) for n in range(layers)])
    ax.tick_params(length=0, pad=2)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return image


def _bar(figure: Figure, image: Any, axes: list[Any], panels: Sequence[Panel], label: str) -> None:
    """A colour bar; a line at each chance level that lies within the range."""
    # As high as the panels; the width follows from `fraction`.
    aspect = 18 if image.get_array().shape[0] <= 8 else 40
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.08, aspect=aspect)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(length=2, pad=1.5, labelsize=6.5)
    if label:
        bar.set_label(label, labelpad=2)
    low, high = image.get_clim()
    for name, line in (("chance", "solid"), ("other_chance", (0, (2, 1)))):
        for chance in sorted({getattr(panel, name) for panel in panels}):
            if low <= chance <= high:
                bar.ax.axhline(chance, color=MARK, linewidth=1.4, linestyle=line)
