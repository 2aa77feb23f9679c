"""Figures 2 and 3 of study 5 and the knock-out, as functions of the metric table: one panel per model (rows)
and data set (columns). Layer 0 is the embeddings, layer l the output of decoder layer l."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import measured, select
from attention_atlas.plotting.style import GREY, LINES, PAGE, new_figure
from attention_atlas.studies.vlm_phases.context_rows import IMAGE, INTER, TEXT
from attention_atlas.studies.vlm_phases.knockout_rows import ALL, CHANGE, NET
from attention_atlas.studies.vlm_phases.phases import NAMES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BANDS = ("#DDEBF7", "#FCE4D6", "#E2F0D9", "#EDE7F3")
DASHED = (0, (4, 3))


def panels(
    table: pd.DataFrame, models: Mapping[str, str], data: Mapping[str, str], height: float = 1.75
) -> tuple[Figure, list[tuple[Any, pd.DataFrame, str]]]:
    """(figure, [(axes, rows of the panel, title)]) for the models (rows) and data sets (columns) in the
    table. models, data: {name in the table: title}. Raises AtlasError if there are none."""
    there = {m: t for m, t in models.items() if (table["model"] == m).any()}
    sets = {d: t for d, t in data.items() if (table["data"] == d).any()}
    if not there or not sets:
        raise AtlasError(
            f"no rows of models {', '.join(models)} on data {', '.join(data)}; run vlm_phases again"
        )
    figure = new_figure(PAGE, height * len(there) + 0.45)
    axes = figure.subplots(len(there), len(sets), squeeze=False, sharex="row")
    found = []
    for r, (model, name) in enumerate(there.items()):
        for c, (one, title) in enumerate(sets.items()):
            found.append((axes[r, c], select(table, model=model, data=one), f"{name}, {title}"))
    return figure, found


def by_layer(
    rows: pd.DataFrame, kind: str, measure: str, condition: str, setting: str = ""
) -> dict[str, np.ndarray] | None:
    """Columns of one measure, sorted by layer, with `sd`; None if the panel lacks it."""
    where = {"kind": kind, "measure": measure, "condition": condition, "setting": setting}
    found = measured(rows, **where)
    found = found[found["layer"] >= 0].sort_values("layer")
    if found.empty:
        return None
    out = {c: found[c].to_numpy(dtype=float) for c in ("layer", "value", "ci_low", "ci_high", "chance", "n")}
    spread = measured(rows, **where, statistic="sd").sort_values("layer")
    if len(spread) == len(found):
        out["sd"] = spread["value"].to_numpy(dtype=float)
    return out


def _line(
    ax: Any, found: dict[str, np.ndarray], name: str, colour: str, shade: str, factor: float = 1.0
) -> None:
    """The mean; shaded its standard deviation over samples ('sd') or its 95 % interval ('ci')."""
    layer, value = found["layer"], factor * found["value"]
    ax.plot(layer, value, color=colour, label=name, marker="o", markersize=1.8)
    if shade == "sd" and "sd" in found:
        low, high = value - factor * found["sd"], value + factor * found["sd"]
    else:
        low, high = factor * found["ci_low"], factor * found["ci_high"]
    ax.fill_between(layer, low, high, color=colour, alpha=0.15, linewidth=0)
    if np.isfinite(found["chance"]).any():
        ax.plot(layer, factor * found["chance"], color=colour, linestyle=DASHED, linewidth=0.8)


def lens(
    table: pd.DataFrame,
    models: Mapping[str, str],
    data: Mapping[str, str],
    condition: str = "normalised",
    shade: str = "sd",
) -> Figure:
    """Figure 2: precision and recall of the words decoded from visual tokens; dashed: with other captions."""
    figure, found = panels(table, models, data)
    for ax, rows, title in found:
        for i, measure in enumerate(("precision", "recall")):
            seen = by_layer(rows, "lens", measure, condition)
            if seen is not None:
                _line(ax, seen, measure, LINES[i], shade)
        ax.set_title(title)
        ax.set_ylim(0, None)
    _finish(figure, found, "share", f"shaded: {_SHADES[shade]}; dashed: captions of other images")
    return figure


def context(
    table: pd.DataFrame, models: Mapping[str, str], data: Mapping[str, str], shade: str = "sd"
) -> Figure:
    """Figure 3: mean cosine between and within the modalities; bands: the phases that the rule finds."""
    figure, found = panels(table, models, data, 1.95)
    for ax, rows, title in found:
        for i, (name, condition) in enumerate(
            {"inter-modal": INTER, "intra-modal, image": IMAGE, "intra-modal, text": TEXT}.items()
        ):
            seen = by_layer(rows, "context", "cosine", condition)
            if seen is not None:
                _line(ax, seen, name, LINES[i], shade)
        ax.set_title(title)
        bands(ax, rows)
    note = f"shaded: {_SHADES[shade]}; dashed: tokens of different images (anisotropy); bands: phases by rule"
    _finish(figure, found, "mean cosine", note)
    return figure


def over_baseline(table: pd.DataFrame, models: Mapping[str, str], data: Mapping[str, str]) -> Figure:
    """Figure 3 minus the similarity of any two states of a layer."""
    figure, found = panels(table, models, data)
    for ax, rows, title in found:
        for i, (name, condition) in enumerate(
            {"inter-modal": INTER, "intra-modal, image": IMAGE, "intra-modal, text": TEXT}.items()
        ):
            seen = by_layer(rows, "context", "cosine over baseline", condition)
            if seen is not None:
                _line(ax, seen | {"chance": np.full_like(seen["value"], np.nan)}, name, LINES[i], "ci")
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_title(title)
        bands(ax, rows)
    _finish(
        figure,
        found,
        "cosine − baseline",
        "shaded: 95 % interval over images; bands: phases of the raw curve",
    )
    return figure


def knockout(
    table: pd.DataFrame, models: Mapping[str, str], data: Mapping[str, str], measure: str = NET
) -> Figure:
    """Change of the caption's log-probability per token when attention is cut in a window of layers; drawn at
    the window's centre. Dotted: all layers cut; dash-dotted: another image. measure: by default the change
    minus the same change when another image is shown (studies/vlm_phases/knockout_rows.py)."""
    figure, found = panels(table, models, data, 1.95)
    for ax, rows, title in found:
        part = select(rows, kind="knockout", measure=measure, input="", group="")
        windows = part.loc[~part["setting"].isin(["", ALL]), ["condition", "setting"]].drop_duplicates()
        blocks = sorted(windows.itertuples(index=False, name=None), reverse=True)
        for i, (block, width) in enumerate(blocks):
            seen = by_layer(rows, "knockout", measure, block, width)
            if seen is None:
                continue
            # A window that starts at layer index f of width w takes state f to state f + w.
            seen["layer"] = seen["layer"] + int(width) / 2
            seen["chance"] = np.full_like(seen["value"], np.nan)
            _line(ax, seen, f"{block} cut, {width} layers", LINES[i], "ci")
            whole = select(part, condition=block, setting=ALL)
            if len(whole):
                ax.axhline(float(whole["value"].iloc[0]), color=LINES[i], linestyle=(0, (1, 2)), linewidth=1)
        other = measured(rows, kind="knockout", measure=CHANGE, condition="", input="other")
        if len(other):
            ax.axhline(float(other["value"].iloc[0]), color=GREY, linestyle="dashdot", linewidth=0.9)
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_title(title)
        bands(ax, rows)
    note = "dotted: all layers cut; dash-dotted: another image; shaded: 95 % interval; bands: phases"
    label = "change of log p per token (nats)"
    if measure == NET:
        label = "net change of log p (nats)"
        note = f"per token, minus the same cut under another image\n{note}"
    _finish(figure, found, label, note)
    return figure


def bands(ax: Any, rows: pd.DataFrame) -> None:
    """Colour the existing phases behind the curves and number them."""
    for i, name in enumerate(NAMES):
        start = select(rows, kind="phases", measure="phase start", group=name)
        end = select(rows, kind="phases", measure="phase end", group=name)
        if len(start) and len(end):
            left, right = float(start["value"].iloc[0]), float(end["value"].iloc[0])
            ax.axvspan(left, right, color=BANDS[i], zorder=0, linewidth=0)
            at = ((left + right) / 2, 0.985)
            ax.text(*at, name.split()[0], transform=ax.get_xaxis_transform(), ha="center", va="top", size=6.5)


_SHADES = {"sd": "standard deviation over samples", "ci": "95 % interval over images"}


def _finish(figure: Figure, found: list[Any], label: str, note: str) -> None:
    """Labels at the edges only, one legend for all panels above them."""
    from matplotlib.ticker import MaxNLocator

    drawn = [ax for ax, *_ in found]
    grid = drawn[0].get_gridspec()
    for i, ax in enumerate(drawn):
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        if i >= len(drawn) - grid.ncols:
            ax.set_xlabel("layer")
        if i % grid.ncols == 0:
            ax.set_ylabel(label)
    handles, labels = drawn[0].get_legend_handles_labels()
    if not handles:
        raise AtlasError("none of its curves is in the table; run the stage vlm_phases again")
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels), frameon=False)
    figure.supxlabel(note, fontsize=6.5, color=GREY)
