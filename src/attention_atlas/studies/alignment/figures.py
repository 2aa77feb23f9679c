"""Tables 2 to 5 of the alignment study as heat maps: one row per alignment, a separate colour scale in each
column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import select
from attention_atlas.plotting.style import GREY, PAGE, SEQUENTIAL, new_figure

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

LETTERS = "abcdefg"
NOISE = "sd of seeds (df)"


def by_alignment(rows: pd.DataFrame, column: str = "value") -> dict[str, float]:
    """Alignment -> number, in the table's order."""
    return {str(a): float(v) for a, v in zip(rows["alignment"], rows[column], strict=True)}


def same_letters(table: pd.DataFrame, model: str, data: str) -> dict[str, str]:
    """Alignment -> a letter shared by all alignments that are the same function in this model."""
    from attention_atlas.studies.alignment.same import groups

    found = select(table, model=model, data=data, kind="same function", measure="same weights")
    both = zip(found["alignment"], found["against"], strict=True)
    pairs = [{"a": a, "b": b, "how": "same weights"} for a, b in both]
    return {name: LETTERS[i] for i, group in enumerate(groups(pairs)) for name in group}


def score_table(
    table: pd.DataFrame,
    columns: Sequence[Mapping[str, Any]],
    titles: Mapping[str, str],
    lower: Sequence[str] = (),
    original: Mapping[str, str] | None = None,
    blind: Mapping[str, str] | None = None,
    name: str = "",
) -> Figure:
    """A heat map as in the paper: darker is better within a column. Under each value half its 95 % interval;
    *: differs from the best row beyond noise (needs two seeds or more and a passed negative control);
    letters: rows that are the same function. Below the rows: chance, the model without an image, the spread
    of seeds.

    columns: {model, data, measure, label, over (heading shared by neighbours), factor, digits, and condition
    and group of a breakdown}. titles: the rows, name -> text, in their order. lower: prefixes of measures for
    which less is better. original: model -> its own alignment (marked ⋄). blind: model -> model without an
    image.
    """
    known = [alignment for alignment in titles if any(_has(table, c, alignment) for c in columns)]
    if not known:
        raise AtlasError("no alignment of `titles` is in the table; correct the figure's YAML")
    labels = ("chance", "no image", NOISE)
    below = {n: [_extra(table, c, n, blind) for c in columns] for n in labels}
    extra = [label for label, texts in below.items() if any(texts)]
    figure = new_figure(PAGE, 0.8 + 0.32 * (len(known) + 0.7 * len(extra)))
    ax = figure.subplots()
    for x, column in enumerate(columns):
        _column(ax, table, x, column, known, lower, (original or {}).get(str(column["model"]), ""))
        for k, label in enumerate(extra):
            ax.text(
                x + 0.5, len(known) + 0.56 + 0.72 * k, below[label][x], ha="center", va="center", size=6.5
            )
    places = [y + 0.5 for y in range(len(known))] + [len(known) + 0.56 + 0.72 * k for k in range(len(extra))]
    ax.set_yticks(places, [titles[name] for name in known] + extra)
    ax.set_xticks([])
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    _headings(ax, columns, lower)
    seeds = sorted({int(n) for c in columns for n in _scores(table, c, statistic="sd")["n"]})
    counted = " and ".join(str(s) for s in seeds) + (" seed" if seeds == [1] else " seeds")
    text = f"mean of {counted}; small: half the 95 % interval; frame: best"
    if any("group" not in c for c in columns):
        text += f"; {_marks(table, seeds)};\n"
        text += "letters: rows that are the same function; ⋄ the model's own"
    figure.supxlabel(text, fontsize=6.5, color=GREY)
    ax.set_xlim(-0.02, len(columns))
    ax.set_ylim(len(known) + (0.25 + 0.72 * len(extra) if extra else 0), -0.62)
    if name:
        figure.suptitle(name, fontsize=8)
    return figure


def _marks(table: pd.DataFrame, seeds: Sequence[int]) -> str:
    """The legend of the star, or why there is none."""
    used = select(table, kind="negative control", measure="rule used")["value"]
    if len(used) and used.iloc[0] == 0:
        return "no marks: the test also marks rows that are the same function"
    if list(seeds) == [1]:
        return "no marks: with one seed the noise of training is unknown"
    return "* differs from the best beyond noise" + (" (columns of two seeds or more)" if 1 in seeds else "")


def _scores(table: pd.DataFrame, column: Mapping[str, Any], **facets: str) -> pd.DataFrame:
    """Rows of a column's score over all examples, with these facets."""
    where = {key: column[key] for key in ("model", "data", "measure")}
    return select(table, **where, kind="score", seed="", **facets)


def _cells(table: pd.DataFrame, column: Mapping[str, Any], model: str = "") -> pd.DataFrame:
    """The numbers of a column, one row for each alignment; those of another model if one is given."""
    where = {key: column[key] for key in ("model", "data", "measure", "condition", "group") if key in column}
    where |= {"model": model} if model else {}
    kind = "breakdown" if "group" in column else "score"
    return select(table, **{"group": "", "condition": ""} | where, kind=kind, seed="", statistic="")


def _has(table: pd.DataFrame, column: Mapping[str, Any], alignment: str) -> bool:
    return bool((_cells(table, column)["alignment"] == alignment).any())


def _column(
    ax: Any,
    table: pd.DataFrame,
    x: int,
    column: Mapping[str, Any],
    known: Sequence[str],
    lower: Sequence[str],
    original: str,
) -> None:
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    factor, digits = float(column.get("factor", 1)), int(column.get("digits", 1))
    cells = _cells(table, column)
    if cells.empty:
        asked = ", ".join(f"{k}={v}" for k, v in column.items())
        raise AtlasError(f"no rows for {asked}; correct the figure's YAML or run the trainings it needs")
    found = {str(row["alignment"]): row for _, row in cells.iterrows() if row["alignment"] in known}
    sign = -1 if _less(column, lower) else 1
    values = np.array([sign * row["value"] for row in found.values()])
    span = values.max() - values.min()
    of_score = {key: column[key] for key in ("model", "data", "measure")}
    tests = select(table, **of_score, kind="difference", condition="best", statistic="marked")
    marked = by_alignment(tests) if "group" not in column else {}
    letters = same_letters(table, str(column["model"]), str(column["data"]))
    cmap = colormaps[SEQUENTIAL]
    for y, alignment in enumerate(known):
        if alignment not in found:
            continue
        row = found[alignment]
        share = 0.5 if span == 0 else float((sign * row["value"] - values.min()) / span)
        colour = cmap(0.03 + 0.72 * share)
        ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="white", linewidth=1))
        best = sign * row["value"] == values.max()
        if best:
            box = Rectangle((x + 0.03, y + 0.05), 0.94, 0.9, fill=False, edgecolor="#D55E00", linewidth=1.1)
            ax.add_patch(box)
        dark = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] < 0.55
        ink = "white" if dark else "black"
        star = "*" if marked.get(alignment) == 1 else ""
        text = f"{factor * row['value']:.{digits}f}{star}".replace("-", "−")
        ax.text(x + 0.5, y + 0.36, text, ha="center", va="center", size=7, color=ink)
        half = factor * (row["ci_high"] - row["ci_low"]) / 2
        if np.isfinite(half):
            ax.text(x + 0.5, y + 0.75, f"±{half:.{digits}f}", ha="center", va="center", size=5, color=ink)
        if alignment == original:
            ax.text(x + 0.08, y + 0.3, "⋄", ha="left", va="center", size=6, color=ink)
        if letters.get(alignment) and "group" not in column:
            ax.text(x + 0.92, y + 0.3, letters[alignment], ha="right", va="center", size=5.5, color=ink)


def _extra(
    table: pd.DataFrame, column: Mapping[str, Any], label: str, blind: Mapping[str, str] | None
) -> str:
    """Text of the rows under the alignments: chance, the model without an image, the pooled standard
    deviation of seeds with its degrees of freedom; "" for none."""
    factor, digits = float(column.get("factor", 1)), int(column.get("digits", 1))
    if label == NOISE:
        pooled = _scores(table, column, statistic="pooled sd")
        if "group" in column or pooled.empty or not pooled["n"].iloc[0]:
            return ""
        return f"{factor * float(pooled['value'].iloc[0]):.{digits}f} ({int(pooled['n'].iloc[0])})"
    if label == "chance":
        chance = _cells(table, column)["chance"].dropna()
        ends = dict.fromkeys(f"{factor * float(c):.{digits}f}" for c in (chance.min(), chance.max()))
        return "–".join(ends) if len(chance) else ""
    other = (blind or {}).get(str(column["model"]))
    if other is None:
        return ""
    found = _cells(table, column, model=other)
    return f"{factor * float(found['value'].iloc[0]):.{digits}f}" if len(found) else ""


def _less(column: Mapping[str, Any], lower: Sequence[str]) -> bool:
    return any(str(column["measure"]).startswith(word) for word in lower)


def _headings(ax: Any, columns: Sequence[Mapping[str, Any]], lower: Sequence[str]) -> None:
    """Labels of the columns, and the headings shared by neighbours above them."""
    start = 0
    for x, column in enumerate(columns):
        label = str(column.get("label", column["measure"])) + (" ↓" if _less(column, lower) else "")
        ax.text(x + 0.5, -0.1, label, ha="center", va="bottom", size=6.5)
        over = column.get("over", "")
        last = x + 1 == len(columns) or columns[x + 1].get("over", "") != over
        if over and last:
            ax.plot([start + 0.06, x + 0.94], [-0.42, -0.42], color=GREY, linewidth=0.6, clip_on=False)
            middle = (start + x + 1) / 2
            ax.text(middle, -0.5, str(over), ha="center", va="bottom", size=7.5, clip_on=False)
        if last:
            start = x + 1
