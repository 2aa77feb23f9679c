"""Figure 4 of study 5: norm-based attention over tokens and layers, over the image, and by modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.images import image_from_base64
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.plotting.overlay import overlay
from attention_atlas.plotting.style import GREY, LINES, PAGE, SEQUENTIAL, new_figure
from attention_atlas.studies.vlm_phases.figures import by_layer, panels
from attention_atlas.studies.vlm_phases.shown import SCHEMA

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLOURS = {"bos": GREY, "image": LINES[0], "prompt": LINES[3], "caption": LINES[1]}


def _samples(shown: str, models: Mapping[str, str], data: Mapping[str, str]) -> list[dict[str, Any]]:
    """Samples of shown.json in the order of models and data, the first of each pair first."""
    kept = [
        [s for s in read_json(shown, schema=SCHEMA)["samples"] if s["model"] == model and s["data"] == one]
        for model in models
        for one in data
    ]
    if not any(kept):
        raise AtlasError(f"{shown}: holds no sample of {', '.join(models)}; run the stage vlm_phases again")
    return [sample for found in kept for sample in found]


def tokens_by_layers(
    table: pd.DataFrame,
    shown: str,
    models: Mapping[str, str],
    data: Mapping[str, str],
    rows: Sequence[str] = ("last text", "last image"),
    each: int = 1,
) -> Figure:
    """One line per sample (`each` of every model and data set), one column per row of attention: layers down,
    preceding tokens across, darker is more; each map has its own scale. Below: groups of the tokens; orange:
    sinks."""
    from matplotlib.patches import Rectangle

    counted: dict[tuple[str, str], int] = {}
    samples = []
    for sample in _samples(shown, models, data):
        key = (sample["model"], sample["data"])
        counted[key] = counted.get(key, 0) + 1
        if counted[key] <= each:
            samples.append(sample)
    figure = new_figure(PAGE, 1.35 * len(samples) + 0.4)
    axes = figure.subplots(len(samples), len(rows), squeeze=False)
    for r, sample in enumerate(samples):
        roles = np.array(sample["roles"])
        span = sample["span"]
        for c, row in enumerate(rows):
            ax = axes[r, c]
            value = np.array(sample["norm"][row], dtype=float)
            last = int(np.flatnonzero(value.any(0)).max()) + 1
            value = value[:, :last]
            layers = len(value)
            # BOS and a few others may get far more than the rest, so the scale ends at the 99th percentile.
            image = ax.imshow(
                value,
                aspect="auto",
                cmap=SEQUENTIAL,
                vmin=0,
                vmax=np.percentile(value, 99),
                interpolation="nearest",
            )
            bar = figure.colorbar(image, ax=ax, pad=0.01, fraction=0.05, aspect=12, extend="max")
            bar.outline.set_visible(False)  # type: ignore[operator]
            bar.ax.tick_params(length=1.5, pad=1, labelsize=5.5)
            for s in range(last):
                part = "caption" if span[0] <= s < span[1] else "prompt" if roles[s] == "text" else roles[s]
                at = (s - 0.5, layers - 0.5)
                colour = COLOURS.get(part, GREY)
                ax.add_patch(Rectangle(at, 1, layers * 0.07, color=colour, linewidth=0, clip_on=False))
            for s in sample["sinks"]:
                if s < last:
                    ax.plot([s], [-0.9], marker="v", markersize=3, color=LINES[5], clip_on=False)
            step = max(1, layers // 4)
            ax.set_yticks(range(step - 1, layers, step), [str(n) for n in range(step, layers + 1, step)])
            ax.set_xticks([])
            for spine in ax.spines.values():
                spine.set_visible(False)
            if r == 0:
                ax.set_title(f"to the tokens before the {row} token", pad=10)
        name = f"{models[sample['model']]}\n{data[sample['data']]}"
        axes[r, 0].set_ylabel(f"{name}\nlayer", fontsize=6.5)
    _key(figure)
    return figure


def _key(figure: Figure) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(color=colour, label=part) for part, colour in COLOURS.items()]
    sink = {"color": LINES[5], "marker": "v", "linestyle": "", "markersize": 4}
    handles.append(Line2D([], [], label="sink", **sink))  # type: ignore[arg-type]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)


def over_image(
    table: pd.DataFrame,
    shown: str,
    models: Mapping[str, str],
    data: Mapping[str, str],
    row: str = "last prompt",
    columns: int = 6,
) -> Figure:
    """Norm-based attention of `row` over the image, for models whose visual tokens have positions; columns
    are layers. Each map has its own scale. Tokens with their own boxes are spread evenly over them."""
    samples = [s for s in _samples(shown, models, data) if s["grid"] or s.get("places")]
    if not samples:
        raise AtlasError(
            f"{shown}: no model has visual tokens with positions in the image; leave the figure out"
        )
    depth = len(samples[0]["norm"][row])
    layers = np.unique(np.linspace(1, depth, columns).round().astype(int))
    cell = (PAGE - 0.3) / (len(layers) + 1)
    figure = new_figure(PAGE, len(samples) * (cell + 0.2) + 0.3)
    axes = figure.subplots(len(samples), len(layers) + 1, squeeze=False)
    for r, sample in enumerate(samples):
        image = image_from_base64(sample["image"])
        if sample["grid"]:
            side = min(image.shape[:2])  # the towers see the centre square
            top, left = (image.shape[0] - side) // 2, (image.shape[1] - side) // 2
            image = image[top : top + side, left : left + side]
        is_image = np.array(sample["roles"]) == "image"
        value = np.array(sample["norm"][row], dtype=float)
        axes[r, 0].imshow(image)
        axes[r, 0].set_axis_off()
        axes[r, 0].set_title(_wrap(sample["text"]), fontsize=5, pad=2)
        for c, layer in enumerate(layers, start=1):
            of_N = value[layer - 1, is_image]
            if sample["grid"]:
                grid = of_N.reshape(sample["grid"])
            else:
                grid = spread(of_N, sample["places"], image.shape[:2])
            overlay(axes[r, c], image, grid, float(grid.max()))
            share = 100 * of_N.sum() / max(value[layer - 1].sum(), 1e-12)
            axes[r, c].set_xlabel(f"{share:.0f} %", fontsize=6, labelpad=1)
            if r == 0:
                axes[r, c].set_title(f"layer {layer}")
    note = f"{row} token; below each map the image's share of the norms at that layer; "
    note += "images drawn at random"
    figure.supxlabel(note, fontsize=6.5, color=GREY)
    return figure


def spread(
    value_N: np.ndarray, places: Sequence[Sequence[float] | None], size: tuple[int, ...]
) -> np.ndarray:
    """(H,W): each value spread evenly over the pixels of its box, which is left, top, right, bottom as shares
    of width and height. Values without a box are left out; those of boxes that overlap (tiles and thumbnail)
    add up."""
    out = np.zeros(size)
    height, width = size
    for value, box in zip(value_N, places, strict=True):
        if box is None:
            continue
        left, right = (round(x * width) for x in box[::2])
        top, bottom = (round(y * height) for y in box[1::2])
        here = out[top : max(bottom, top + 1), left : max(right, left + 1)]
        here += value / max(here.size, 1)
    return out


def _wrap(text: str, width: int = 26) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)[:3])


def by_modality(
    table: pd.DataFrame,
    models: Mapping[str, str],
    data: Mapping[str, str],
    row: str = "last text",
    measure: str = "norm share",
    label: str = "share of the norms (%)",
) -> Figure:
    """Share of each group by layer; dashed: a row spread evenly over the tokens it sees."""
    from attention_atlas.studies.vlm_phases.figures import _finish, _line

    figure, found = panels(table, models, data)
    for ax, rows, title in found:
        for group, colour in COLOURS.items():
            seen = by_layer(rows, "norm", measure, f"{row} → {group}")
            if seen is not None:
                seen["layer"] = seen["layer"] + 1
                _line(ax, seen, group, colour, "ci", 100.0)
        ax.set_title(title)
        ax.set_ylim(0, None)
    _finish(
        figure,
        found,
        label,
        f"of the {row} token; dashed: spread evenly; shaded: 95 % interval over images",
    )
    return figure


def concentration(table: pd.DataFrame, models: Mapping[str, str], data: Mapping[str, str]) -> Figure:
    """Concentration of the norms, and of the weights, on few tokens: 0 spread evenly, 1 all on one."""
    from attention_atlas.studies.vlm_phases.figures import _finish, _line

    figure, found = panels(table, models, data)
    for ax, rows, title in found:
        for i, row in enumerate(("last text", "last image")):
            for measure, style in (("norm concentration", "-"), ("attention concentration", ":")):
                seen = by_layer(rows, "norm", measure, row)
                if seen is None:
                    continue
                seen["layer"] = seen["layer"] + 1
                name = f"{row}, {'norms' if style == '-' else 'weights'}"
                _line(ax, seen, name, LINES[i], "ci")
                ax.lines[-1].set_linestyle(style)
        ax.set_title(title)
        ax.set_ylim(0, 1)
    _finish(figure, found, "1 − entropy / maximum", "shaded: 95 % interval over images")
    return figure
