"""Single numbers in the report: the comparison with the paper, and the targets of a profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from attention_atlas.errors import ConfigError
from attention_atlas.reporting.claims import AS_IN_PAPER, CONTRARY, NOT_DECIDED, Number, judge
from attention_atlas.reporting.numbers import Quote, Tables, pick, quote

MET = {AS_IN_PAPER: "met", CONTRARY: "not met", NOT_DECIDED: "not decided"}


def headlines(tables: Tables, entries: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """All lines of the comparison; a claim may name another line (see reporting/claims.py)."""
    lines = [headline(tables, entry) for entry in entries]
    numbers = _by_name(lines)
    for line, entry in zip(lines, entries, strict=True):
        if entry.get("claim") is not None:
            line["outcome"] = judge(entry["claim"], line["number"], numbers, line["name"])
    return lines


def _by_name(lines: list[dict[str, Any]]) -> dict[str, Number]:
    """The numbers of the lines whose name is unique."""
    names = [line["name"] for line in lines]
    return {line["name"]: line["number"] for line in lines if names.count(line["name"]) == 1}


def targets(
    tables: Tables, entries: list[Mapping[str, Any]], shown: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What the study should show, and whether it does.

    An entry is that of a headline with `target`, in the form of a claim. It may name the headlines in `shown`
    and `other`, {name, where, pick}: the number to compare with, in another row of the same table (`where` is
    the difference). With `sparse` an entry without a matching row is shown as not measured.
    """
    lines = []
    for entry in entries:
        name, table = str(needed(entry, "name", "targets")), str(needed(entry, "table", "targets"))
        where, other = dict(entry.get("where") or {}), entry.get("other") or {}
        compared = where | dict(other.get("where") or {})
        if entry.get("sparse") and any(tables.rows(table, w).empty for w in (where, compared)):
            nothing = {"unit": "", "ours": Quote("not measured"), "other": "", "outcome": None}
            lines.append({"name": name} | nothing)
            continue
        line, numbers, text = headline(tables, entry), _by_name(shown), ""
        if other:
            found = headline(tables, {**entry, **other, "name": name, "where": compared})
            numbers[str(needed(other, "name", name))] = found["number"]
            text = f"{other['name']}: {found['ours'].value} {found['ours'].interval}"
        outcome = judge(needed(entry, "target", name), line["number"], numbers, name)
        lines.append(line | {"other": text, "outcome": replace(outcome, verdict=MET[outcome.verdict])})
    return lines


def headline(tables: Tables, entry: Mapping[str, Any]) -> dict[str, Any]:
    """{name, paper, claim, table, where, pick, factor, digits, unit, convention} -> one line of the
    comparison, whose claim is not yet evaluated."""
    what = str(needed(entry, "name", "headlines"))
    rows = tables.rows(str(needed(entry, "table", what)), entry.get("where") or {})
    row = pick(rows, str(entry.get("pick", "overall")), what)
    factor, digits = float(entry.get("factor", 1)), int(entry.get("digits", 2))
    return {
        "name": what,
        "paper": str(entry.get("paper", "")),
        "unit": str(entry.get("unit", "")),
        "convention": str(entry.get("convention", "")),
        "ours": quote(row, factor, digits, powers=True),
        "number": Number.of(row, factor, digits),
        "outcome": None,
    }


def needed(entry: Mapping[str, Any], key: str, what: str) -> Any:
    if key not in entry:
        raise ConfigError(f"conf/report: {what}: {key}: missing; add it")
    return entry[key]
