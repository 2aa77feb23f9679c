"""Figures 3 to 6 of "Attention as Grounding", from the metric table alone.

Values are per cent except the entropy, which is 0 (one key) to 1 (uniform).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.measures.table import head_matrix, rows_of
from attention_atlas.plotting.curves import curve, layer_curves
from attention_atlas.plotting.heatmap import Panel, heatmaps
from attention_atlas.plotting.style import COLUMN, PAGE, interval, number, p_value

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

KIND_NAMES = {
    "decoder_self": "masked self-attention",
    "cross": "cross-attention",
    "encoder_self": "encoder self-attention",
}


def entropy(
    table: pd.DataFrame, kinds: Sequence[str] = ("decoder_self", "cross"), condition: str = "visible",
    scale: str = "own",
) -> Figure:  # fmt: skip
    """Figure 3: normalised entropy of each head, (a) masked self-attention, (b) cross-attention."""
    panels, counts = [], []
    for letter, kind in zip("abcdefgh", kinds, strict=False):
        rows = rows_of(table, measure="entropy", kind=kind, condition=condition)
        panels.append(Panel(head_matrix(rows), f"({letter}) {KIND_NAMES.get(kind, kind)}"))
        counts.append(f"({letter}) {_count(rows)} rows")
    note = "normalised entropy; n = " + ", ".join(counts)
    return heatmaps(
        panels, width=PAGE, columns=2, label="entropy / max", scale=scale, digits=2, frame=False, note=note
    )


def noun_grounding(
    table: pd.DataFrame, condition: str = "phrases", kind: str = "cross", scale: str = "own"
) -> Figure:
    """Figure 4: share of cross-attention from noun phrases to their linked regions, with both chance levels:
    attention that is uniform over the regions, and attention proportional to their area. A head is above
    chance when the lower end of its interval is above both."""
    rows = rows_of(table, measure="grounding", kind=kind, condition=condition)
    heads = rows[rows["head"] >= 0]
    by_area = rows_of(table, measure="grounding_chance", kind=kind, condition="area")
    uniform, area = (100 * float(v) for v in (rows["chance"].iloc[0], by_area["value"].iloc[0]))
    title = (
        f"noun phrase → linked regions\n(chance: uniform {number(uniform, 1)} %, by area {number(area, 1)} %)"
    )
    note = f"n = {_count(rows)} phrases; {_above_chance(heads, max(uniform, area) / 100)}\n"
    note += "frame: highest head\nlines on the bar: chance, uniform (solid) and by area (dashed)"
    return heatmaps(
        [Panel(100 * head_matrix(rows), title, uniform, area)],
        width=COLUMN * 1.15, columns=1, label="P (%)", scale=scale, digits=1, note=note,
    )  # fmt: skip


def pos_sets(
    table: pd.DataFrame, sets: Sequence[str], kind: str = "decoder_self", scale: str = "own"
) -> Figure:
    """Figure 5: share of self-attention on two sets of parts of speech, and their correlation over heads."""
    panels = []
    for letter, name in zip("abcdefgh", sets, strict=False):
        rows = rows_of(table, measure="pos_share", kind=kind, condition=name)
        chance = 100 * float(rows["chance"].iloc[0])
        title = f"({letter}) {name.replace('+', ', ')} (chance {number(chance, 1)} %)"
        panels.append(Panel(100 * head_matrix(rows), title, chance))
    note = f"n = {_count(rows)} words"
    if len(sets) == 2:
        pair = {"measure": "pos_correlation", "kind": kind, "condition": sets[0], "against": sets[1]}
        r, p = (rows_of(table, **pair, statistic=name).iloc[0] for name in ("", "p"))
        note += "; over heads: not defined (a map is constant)"
        if np.isfinite(r["value"]):
            span = interval(r["ci_low"], r["ci_high"])
            span = "(interval: none)" if span == "none" else span
            note = (
                f"n = {_count(rows)} words; over heads r = {number(r['value'])} {span}, "
                f"{p_value(p['value'])}, n = {int(r['n'])}"
            )
    return heatmaps(panels, width=PAGE, columns=2, label="share (%)", scale=scale, note=note)


def relations(table: pd.DataFrame, panels: Mapping[str, Sequence[str]], scale: str = "own") -> Figure:
    """Figure 6: attention between the parts of spatial relations. `panels`: kind -> conditions, one row of
    panels for each kind."""
    drawn, columns = [], max(len(conditions) for conditions in panels.values())
    counts = []
    for kind, conditions in panels.items():
        ns = []
        for condition in conditions:
            rows = rows_of(table, measure="relations", kind=kind, condition=condition)
            letter, _, arrow = condition.partition(" ")
            chance = 100 * float(rows["chance"].iloc[0])
            title = f"({letter}) {arrow}\nchance {number(chance, 1)} %"
            drawn.append(Panel(100 * head_matrix(rows), title, chance))
            ns.append(int(rows["n"].max()))
        span = f"{min(ns):,}" if min(ns) == max(ns) else f"{min(ns):,}–{max(ns):,}"
        counts.append(f"{KIND_NAMES.get(kind, kind)} n = {span}")
    note = "P (%) per relation, generated → attended; frame: highest head; line on the bar: chance\n"
    note += "; ".join(counts)
    return heatmaps(drawn, width=PAGE * 1.12, columns=columns, label="P (%)", scale=scale, note=note)


def by_layer(table: pd.DataFrame, kind: str = "cross", condition: str = "phrases") -> Figure:
    """Not in the paper: grounding and entropy per layer with intervals, which heat maps cannot show."""
    grounding = rows_of(table, measure="grounding", kind=kind, condition=condition)
    shares = [curve(grounding, "linked regions", 100.0)]
    entropies = [
        curve(rows_of(table, measure="entropy", kind=k, condition="visible"), KIND_NAMES.get(k, k))
        for k in ("decoder_self", "cross")
    ]
    for item in entropies:
        item.chance = float("nan")  # uniform attention has entropy 1 by definition
    panels = [("(a) grounding of nouns: P (%)", shares), ("(b) normalised entropy", entropies)]
    note = "line: mean of the layer's heads, 95 % interval over images; dots: heads; dashed: chance"
    return layer_curves(panels, width=PAGE, label="", note=note)


def _above_chance(heads: pd.DataFrame, chance: float) -> str:
    """Number of heads above both chance levels; unknown for a single image, which gives no intervals."""
    if heads["ci_low"].isna().all():
        return "heads above chance: not known (interval: none)"
    above = int((heads["ci_low"] > chance).sum())
    return f"{above} of {len(heads)} heads above both chance levels\n(95 % interval)"


def _count(rows: pd.DataFrame) -> str:
    return f"{int(rows['n'].max()):,}"
