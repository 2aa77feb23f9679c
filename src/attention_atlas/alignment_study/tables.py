"""Tables 2 to 5 and the breakdowns of Figs. 1 and 2 as metric rows (see docs/alignment.md for the kinds)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from attention_atlas.alignment_study.compare import (
    Estimate,
    consistent,
    estimates,
    group_estimates,
    verdicts,
)
from attention_atlas.alignment_study.panel import Panel
from attention_atlas.alignment_study.same import groups

Row = dict[str, Any]


def is_lower(name: str, lower: Sequence[str]) -> bool:
    """Whether less of this score is better; `lower` are beginnings of names."""
    return any(name.startswith(word) for word in lower)


def ranked(panel: Panel, name: str, lower: Sequence[str] = ()) -> list[str]:
    """The alignments from best to worst by the mean over seeds; equals in the table's order."""
    sign = 1 if is_lower(name, lower) else -1
    mean_A = sign * panel.scores(name).mean(1)
    return [panel.alignments[i] for i in np.argsort(mean_A, kind="stable")]


def panel_rows(panel: Panel, reference: str, lower: Sequence[str] = (), seed: int = 0) -> Iterator[Row]:
    """All rows of one panel. `reference`: the alignment that differences are to, besides the best one."""
    for name in panel.score_names:
        yield from score_rows(panel, name, seed)
        if reference in panel.cells:
            yield from difference_rows(panel, name, reference, "reference", seed)
        if len(panel.cells) > 1:
            yield from difference_rows(panel, name, ranked(panel, name, lower)[0], "best", seed)
            yield from equal_rows(panel, name)
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
    """`alignment`: mean over seeds with its interval; `seed`: each seed; `seed sd`: deviation over them."""
    scores_AS, chance_A = panel.scores(name), panel.chance(name)
    for i, (alignment, found) in enumerate(zip(panel.alignments, estimates(panel, name, seed), strict=True)):
        yield _row(panel, "alignment", name, alignment, chance=float(chance_A[i]), **_numbers(found))
        for k, value in enumerate(scores_AS[i]):
            yield _row(panel, "seed", name, f"{alignment} | {k}", value=float(value), n=found.n)
        yield _row(panel, "seed sd", name, alignment, value=found.seed_sd, n=panel.seeds)


def difference_rows(panel: Panel, name: str, against: str, label: str, seed: int = 0) -> Iterator[Row]:
    """`difference`: to the reference or the best; `p pictures`, `p seeds`, `p` (Holm), `real` 0 or 1."""
    for alignment, found in verdicts(panel, name, against, seed).items():
        both = f"{alignment} − {label}"
        yield _row(
            panel,
            "difference",
            name,
            both,
            value=found.value,
            ci_low=found.ci_low,
            ci_high=found.ci_high,
            n=panel.seeds,
            chance=0.0,
        )
        for kind, value in (
            ("p pictures", found.p_examples),
            ("p seeds", found.p_seeds),
            ("p", found.p),
            ("real", float(found.real)),
        ):
            yield _row(panel, kind, name, both, value=value, n=panel.seeds)
    yield _row(panel, f"{label} is", name, against, value=1.0, n=panel.seeds)


def equal_rows(panel: Panel, name: str) -> Iterator[Row]:
    """`equal rows`: what separates the trained means of alignments that are the same function, i.e. noise."""
    means = dict(zip(panel.alignments, panel.scores(name).mean(1), strict=True))
    for group in groups(panel.same):
        ordered = [a for a in panel.alignments if a in group]
        for a, b in combinations(ordered, 2):
            yield _row(
                panel, "equal rows", name, f"{a} − {b}", value=float(means[a] - means[b]), n=panel.seeds
            )


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
