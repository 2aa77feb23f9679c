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


def is_lower(name: str, lower: Sequence[str]) -> bool:
    """Whether less of this score is better; `lower` are prefixes of names."""
    return any(name.startswith(word) for word in lower)


def ranked(panel: Panel, name: str, lower: Sequence[str] = ()) -> list[str]:
    """The alignments from best to worst by the mean over seeds; ties in the table's order."""
    sign = 1 if is_lower(name, lower) else -1
    mean_A = sign * panel.scores(name).mean(1)
    return [panel.alignments[i] for i in np.argsort(mean_A, kind="stable")]


def panel_rows(panel: Panel, reference: str, lower: Sequence[str] = (), seed: int = 0) -> Iterator[Row]:
    """All rows of one panel. `reference`: differences are to this alignment and to the best one."""
    for name in panel.score_names:
        yield from score_rows(panel, name, seed)
        found = verdicts(panel, name, seed)
        if reference in panel.cells:
            yield from difference_rows(panel, name, found, reference, "reference")
        if len(panel.cells) > 1:
            yield from difference_rows(panel, name, found, ranked(panel, name, lower)[0], "best")
            yield from equal_rows(panel, name, found)
        yield from breakdown_rows(panel, name, seed)
    for pair in panel.same:
        how, both = pair["how"], f"{pair['a']} = {pair['b']}"
        yield _row(panel, "same function", how, both, value=pair["values"], n=1)


def _row(panel: Panel, kind: str, metric: str, condition: str, **numbers: Any) -> Row:
    return {
        "model": panel.model,
        "data": panel.data,
        "kind": kind,
        "metric": metric,
        "condition": condition,
        **numbers,
    }


def _numbers(found: Estimate) -> Row:
    return {"value": found.value, "ci_low": found.ci_low, "ci_high": found.ci_high, "n": found.n}


def score_rows(panel: Panel, name: str, seed: int = 0) -> Iterator[Row]:
    """`alignment`: mean over seeds with its interval; `seed`: each seed; `seed sd`: deviation over them;
    `pooled seed sd`: one for all alignments, n is its degrees of freedom."""
    scores_AS, chance_A = panel.scores(name), panel.chance(name)
    for i, (alignment, found) in enumerate(zip(panel.alignments, estimates(panel, name, seed), strict=True)):
        yield _row(panel, "alignment", name, alignment, chance=float(chance_A[i]), **_numbers(found))
        for k, value in enumerate(scores_AS[i]):
            yield _row(panel, "seed", name, f"{alignment} | {k}", value=float(value), n=found.n)
        yield _row(panel, "seed sd", name, alignment, value=found.seed_sd, n=panel.seeds)
    noise = pooled(scores_AS)
    yield _row(panel, "pooled seed sd", name, "all alignments", value=noise.sd, n=noise.freedom)


def difference_rows(
    panel: Panel, name: str, found: Mapping[tuple[str, str], Verdict], against: str, label: str
) -> Iterator[Row]:
    """`difference`: to the reference or the best; `p pictures` and `p seeds` from one kind of noise alone;
    `p both`; `p` with Holm's correction; `real` 0 or 1, empty without a test."""
    for alignment in panel.alignments:
        if alignment == against:
            continue
        one, both = found[alignment, against], f"{alignment} − {label}"
        yield _row(
            panel,
            "difference",
            name,
            both,
            value=one.value,
            ci_low=one.ci_low,
            ci_high=one.ci_high,
            n=panel.seeds,
            chance=0.0,
        )
        for kind, value in (
            ("p pictures", one.p_examples),
            ("p seeds", one.p_seeds),
            ("p both", one.p_both),
            ("p", one.p),
            ("real", _mark(one)),
        ):
            yield _row(panel, kind, name, both, value=value, n=panel.seeds)
    yield _row(panel, f"{label} is", name, against, value=1.0, n=panel.seeds)


def _mark(one: Verdict) -> float:
    return float("nan") if np.isnan(one.p) else float(one.real)


def equal_rows(panel: Panel, name: str, found: Mapping[tuple[str, str], Verdict]) -> Iterator[Row]:
    """`equal rows`: difference of the trained means of alignments that are the same function, i.e. noise;
    `equal rows p`, before Holm's correction; `equal rows marked`: 0 or 1, empty without a test."""
    for group in groups(panel.same):
        for a, b in combinations([a for a in panel.alignments if a in group], 2):
            one, both = found[a, b], f"{a} − {b}"
            yield _row(panel, "equal rows", name, both, value=one.value, n=panel.seeds)
            yield _row(panel, "equal rows p", name, both, value=one.p_both, n=panel.seeds)
            yield _row(panel, "equal rows marked", name, both, value=_mark(one), n=panel.seeds)


def control_rows(rows: Sequence[Row]) -> tuple[Control, list[Row]]:
    """How often pairs of equal functions are marked, over all panels and scores, and its rows.

    `negative control`: `marked`, the share of n tested pairs, chance is the significance level; `p below
    level`, the same before Holm's correction; `rule used`, 0 if equal functions are marked too often.
    """
    marks = [row["value"] for row in rows if row["kind"] == "equal rows marked"]
    p = np.array([row["value"] for row in rows if row["kind"] == "equal rows p"], dtype=float)
    found, below = control(marks), int((p < LEVEL).sum())
    base = {"model": "all", "data": "", "kind": "negative control", "condition": "pairs of equal functions"}
    if not found.pairs:
        base["condition"] = "no pair of equal functions has two seeds"
    numbers = {"n": found.pairs, "chance": LEVEL}
    share, uncorrected = (k / found.pairs if found.pairs else float("nan") for k in (found.marked, below))
    return found, [
        {**base, "metric": "marked", "value": share, **numbers},
        {**base, "metric": "p below level", "value": uncorrected, **numbers},
        {**base, "metric": "rule used", "value": float(found.passed), "n": found.pairs},
    ]


def breakdown_rows(panel: Panel, name: str, seed: int = 0) -> Iterator[Row]:
    """`by <group>`: the score over the examples of each member, conditions '<alignment> | <member>'; chance
    is left out, as it differs between members."""
    known = consistent(panel, name)
    if known is None:
        return
    factor = known[1]
    for group, members in panel.groups().items():
        for member in members:
            found = group_estimates(panel, name, group, member, factor, seed)
            for alignment, estimate in zip(panel.alignments, found):
                yield _row(panel, f"by {group}", name, f"{alignment} | {member}", **_numbers(estimate))
