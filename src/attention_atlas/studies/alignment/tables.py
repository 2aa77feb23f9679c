"""Tables 2 to 5 and the breakdowns of Figs. 1 and 2 as metric rows (see docs/alignment.md for the kinds)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from attention_atlas.studies.alignment.compare import (
    LEVEL,
    Control,
    Estimate,
    Verdict,
    consistent,
    control,
    estimates,
    group_estimates,
    pooled,
    verdicts,
)
from attention_atlas.studies.alignment.panel import Panel
from attention_atlas.studies.alignment.same import groups

Row = dict[str, Any]
SCORE, EQUAL = "score", "equal rows"


def is_lower(name: str, lower: Sequence[str]) -> bool:
    """Whether less of this score is better; `lower` are prefixes of names."""
    return any(name.startswith(word) for word in lower)


def ranked(panel: Panel, name: str, lower: Sequence[str] = ()) -> list[str]:
    """The alignments from best to worst by the mean over seeds; ties in the table's order."""
    sign = 1 if is_lower(name, lower) else -1
    mean_A = sign * panel.scores(name).mean(1)
    return [panel.alignments[i] for i in np.argsort(mean_A, kind="stable")]


def panel_rows(panel: Panel, reference: str, lower: Sequence[str] = (), seed: int = 0) -> Iterator[Row]:
    """All rows of one panel, with differences from the alignment `reference` and from the best one."""
    for name in panel.score_names:
        yield from score_rows(panel, name, seed)
        found = verdicts(panel, name, seed)
        if reference in panel.runs:
            yield from difference_rows(panel, name, found, reference, "reference")
        if len(panel.runs) > 1:
            yield from difference_rows(panel, name, found, ranked(panel, name, lower)[0], "best")
            yield from equal_rows(panel, name, found)
        yield from breakdown_rows(panel, name, seed)
    for pair in panel.same:
        pair_of = {"alignment": pair["a"], "against": pair["b"]}
        yield row(panel, "same function", pair["how"], **pair_of, value=pair["values"], n=1)


def row(panel: Panel, kind: str, measure: str, **more: Any) -> Row:
    """A row about the panel; `more`: facets and numbers."""
    return {"model": panel.model, "data": panel.data, "kind": kind, "measure": measure, **more}


def _numbers(found: Estimate) -> Row:
    return {"value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "n": found.n}


def score_rows(panel: Panel, name: str, seed: int = 0) -> Iterator[Row]:
    """Kind `score`: mean over seeds with its interval, and each seed. Statistic `sd`: deviation over seeds;
    `pooled sd`: one for all alignments, n is its degrees of freedom."""
    scores_AS, chance_A = panel.scores(name), panel.chance(name)
    for i, (alignment, found) in enumerate(zip(panel.alignments, estimates(panel, name, seed), strict=True)):
        at = row(panel, SCORE, name, alignment=alignment)
        yield at | _numbers(found) | {"chance": float(chance_A[i])}
        for k, value in enumerate(scores_AS[i]):
            yield at | {"seed": str(k), "value": float(value), "n": found.n}
        yield at | {"statistic": "sd", "value": found.seed_sd, "n": panel.seeds}
    noise = pooled(scores_AS)
    yield row(panel, SCORE, name, statistic="pooled sd", value=noise.sd, n=noise.freedom)


def difference_rows(
    panel: Panel, name: str, found: Mapping[tuple[str, str], Verdict], against: str, role: str
) -> Iterator[Row]:
    """Kind `difference`, condition `role`: each alignment minus the reference or the best one (`against`).
    Statistics: `p images` and `p seeds` from one kind of noise alone; `p`, from both; `p Holm`, corrected;
    `marked`, 0 or 1, empty without a test."""
    for alignment in panel.alignments:
        if alignment == against:
            continue
        one = found[alignment, against]
        at = row(panel, "difference", name, condition=role, alignment=alignment, against=against)
        at["n"] = panel.seeds
        yield at | {"value": one.value, "ci_low": one.ci_low, "ci_high": one.ci_high, "chance": 0.0}
        for statistic, value in (
            ("p images", one.p_examples),
            ("p seeds", one.p_seeds),
            ("p", one.p_both),
            ("p Holm", one.p),
            ("marked", _mark(one)),
        ):
            yield at | {"statistic": statistic, "value": value}


def _mark(one: Verdict) -> float:
    return float("nan") if np.isnan(one.p) else float(one.real)


def equal_rows(panel: Panel, name: str, found: Mapping[tuple[str, str], Verdict]) -> Iterator[Row]:
    """Kind `equal rows`: difference of the trained means of alignments that are the same function, i.e.
    noise. Statistics: `p`, before Holm's correction; `marked`, 0 or 1, empty without a test."""
    for group in groups(panel.same):
        for a, b in combinations([a for a in panel.alignments if a in group], 2):
            one, at = found[a, b], row(panel, EQUAL, name, alignment=a, against=b, n=panel.seeds)
            yield at | {"value": one.value}
            yield at | {"statistic": "p", "value": one.p_both}
            yield at | {"statistic": "marked", "value": _mark(one)}


def control_rows(rows: Sequence[Row]) -> tuple[Control, list[Row]]:
    """How often pairs of equal functions are marked, over all panels and scores, and its rows.

    `negative control`: `marked`, the share of n tested pairs, chance is the significance level; `p below
    level`, the same before Holm's correction; `rule used`, 0 if equal functions are marked too often.
    """
    equal = [row for row in rows if row["kind"] == EQUAL]
    marks = [row["value"] for row in equal if row.get("statistic") == "marked"]
    p = np.array([row["value"] for row in equal if row.get("statistic") == "p"], dtype=float)
    found, below = control(marks), int((p < LEVEL).sum())
    base = {"model": "all", "data": "", "kind": "negative control", "condition": "pairs of equal functions"}
    if not found.pairs:
        base["condition"] = "no pair of equal functions has two seeds"
    numbers = {"n": found.pairs, "chance": LEVEL}
    share, uncorrected = (k / found.pairs if found.pairs else float("nan") for k in (found.marked, below))
    return found, [
        {**base, "measure": "marked", "value": share, **numbers},
        {**base, "measure": "p below level", "value": uncorrected, **numbers},
        {**base, "measure": "rule used", "value": float(found.passed), "n": found.pairs},
    ]


def breakdown_rows(panel: Panel, name: str, seed: int = 0) -> Iterator[Row]:
    """Kind `breakdown`: the score over the examples of each `group`; condition: what they are grouped by.
    Chance is left out, as it differs between groups."""
    known = consistent(panel, name)
    if known is None:
        return
    factor = known[1]
    for by, members in panel.groups().items():
        for member in members:
            found = group_estimates(panel, name, by, member, factor, seed)
            for alignment, estimate in zip(panel.alignments, found):
                at = row(panel, "breakdown", name, condition=by, alignment=alignment, group=str(member))
                yield at | _numbers(estimate)
