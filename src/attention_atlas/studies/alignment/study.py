"""From all runs of the study to its table, its summary and shown_<panel>.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.measures.table import make_table, select
from attention_atlas.studies.alignment.grounding import correlation_rows, grounding_rows, pooled_rows
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.same import groups
from attention_atlas.studies.alignment.select import write_shown
from attention_atlas.studies.alignment.tables import (
    Row,
    breakdown_rows,
    control_rows,
    panel_rows,
    ranked,
    score_rows,
)

if TYPE_CHECKING:
    import pandas as pd


def main_score(panel: Panel, scores: Mapping[str, str]) -> str:
    """The score of conf/study that defines the best alignment. Raises ConfigError if the runs lack
    it."""
    name = scores.get(panel.model, panel.score_names[0])
    if name not in panel.score_names:
        raise ConfigError(
            f"conf/study: score: {panel.model} has no '{name}'{did_you_mean(name, panel.score_names)}"
        )
    return name


def study_table(
    panels: Sequence[Panel],
    blind: Sequence[Panel],
    scores: Mapping[str, str],
    reference: str,
    lower: Sequence[str] = (),
    study: str = "alignment",
    seed: int = 0,
) -> pd.DataFrame:
    """All rows of the study. `blind` are panels of models that see no image; `scores` names the main score
    of a model. If the negative control fails, no difference is marked (`marked` is empty)."""
    rows: list[Row] = []
    for panel in panels:
        name = main_score(panel, scores)
        rows += panel_rows(panel, reference, lower, seed)
        rows += grounding_rows(panel, seed)
        rows += correlation_rows(panel, name, lower, "mass", seed)
        rows += correlation_rows(panel, name, lower, "top1", seed)
    control, found = control_rows(rows)
    if not control.passed:
        marks = ("difference", "marked")
        rows = [
            row | {"value": float("nan")} if (row["kind"], row.get("statistic")) == marks else row
            for row in rows
        ]
    rows += found
    for panel in blind:
        for name in panel.score_names:
            rows += score_rows(panel, name, seed)
            rows += breakdown_rows(panel, name, seed)
    if len(panels) > 1:
        rows += pooled_rows(panels, [main_score(p, scores) for p in panels], lower, seed)
    return make_table({"study": study, **row} for row in rows)


def write_examples(
    panels: Mapping[str, Panel],
    scores: Mapping[str, str],
    titles: dict[str, str],
    lower: Sequence[str],
    out: Path,
    examples: int = 4,
    seed: int = 0,
) -> None:
    """Write `out`/tables/shown_<panel>.json. `examples` are shown per panel, half of them drawn with
    `seed`."""
    for name, panel in panels.items():
        if all(found[0].shown for found in panel.runs.values()):
            path = out / "tables" / f"shown_{name}.json"
            write_shown(panel, main_score(panel, scores), titles, path, lower, examples, seed)


def about(
    frame: pd.DataFrame,
    panels: Mapping[str, Panel],
    scores: Mapping[str, str],
    titles: Mapping[str, str],
    lower: Sequence[str] = (),
) -> dict[str, Any]:
    """Summary of the runs for the report: seeds and their noise, best and worst, equal rows, the number of
    marked differences, and the result of the negative control."""
    found: dict[str, Any] = {}
    for panel in panels.values():
        name = main_score(panel, scores)
        order = ranked(panel, name, lower)
        rows = select(frame, model=panel.model, data=panel.data, measure=name)
        text = f"{panel.seeds} seeds" if panel.seeds > 1 else "1 seed, so that nothing is marked"
        if panel.seeds > 1:
            noise = select(rows, statistic="pooled sd").iloc[0]
            freedom = int(noise["n"])
            text += f", pooled standard deviation {noise['value']:.3g} ({freedom} degrees of freedom)"
        text += f"; by {name} {titles.get(order[0], order[0])} is best"
        text += f" and {titles.get(order[-1], order[-1])} worst"
        marked = select(rows, kind="difference", condition="best", statistic="marked")
        marks = marked["value"].dropna()
        if len(marks):
            text += f"; {int(marks.sum())} of {len(marks)} differences to the best exceed noise"
        equal = [
            " = ".join(titles.get(a, a) for a in panel.alignments if a in group)
            for group in groups(panel.same)
        ]
        if equal:
            text += f"; the same function: {'; '.join(equal)}"
        found[f"{panel.title or panel.model}, {panel.data}"] = text
    found["negative control"] = control_text(frame)
    return found


def control_text(frame: pd.DataFrame) -> str:
    """How often equal functions are marked, and whether marks are shown at all."""
    rows = select(frame, kind="negative control")
    share = dict(zip(rows["measure"], rows["value"], strict=True))
    pairs, level = int(rows["n"].max()), 100 * float(rows["chance"].max())
    if not pairs:
        return "not possible: no pair of equal functions was trained with two seeds or more"
    counts = {m: round(share[m] * pairs) for m in ("marked", "p below level")}
    text = (
        f"{counts['marked']} of {pairs} differences between equal functions (pairs times scores) are marked; "
        f"nominal level {level:.0f} %; {counts['p below level']} before Holm's correction"
    )
    if share["rule used"] == 0:
        text += "; the rule marks equal functions too often, so no difference is marked in this study"
    return text
