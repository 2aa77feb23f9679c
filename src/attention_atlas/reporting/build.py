"""results/report.html: the papers' numbers next to ours, tables and figures of every study, in one file.

A study has one file in conf/report/ (see conf/report/grounding.yaml); without one, its figures are shown.
This module is independent of the studies. The page needs no network: figures are embedded. It contains no
time, host or path, so the same results give the same bytes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.files import read_json, write_text
from attention_atlas.reporting.claims import Number, Outcome, judge
from attention_atlas.reporting.lines import headlines, needed, targets
from attention_atlas.reporting.numbers import Quote, Tables, pick, quote, row_label
from attention_atlas.reporting.template import PAGE
from attention_atlas.workflow.params import is_shown

SCREEN = 0.57  # screen points per pixel of a figure
PARTS = ("headlines", "tables", "summaries", "figures")
SECTIONS = ("study", "title", "paper", "intro", "notes", "targets", *PARTS)


def build_report(
    reports: Mapping[str, Mapping[str, Any]], results: str | Path, out: str | Path, profile: str = ""
) -> dict[str, dict[str, float]]:
    """Write the page; return {name: {headline: number}} of each study.

    reports: name -> content of its conf/report YAML, as plain dicts and lists, or the result of `plain`.

    Raises AtlasError if the results of a study are missing or lack a quoted row or figure, ConfigError if a
    YAML names an unknown key, table or column.
    """
    import jinja2

    if not reports:
        raise ConfigError("conf/report: no study to report; name at least one in `studies` of params.yaml")
    studies = [study(name, dict(spec), Path(results), profile) for name, spec in reports.items()]
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    write_text(out, environment.from_string(PAGE).render(studies=studies, profile=profile))
    return {s["folder"]: {line["name"]: line["number"].value for line in s["headlines"]} for s in studies}


def plain(name: str, results: Path) -> dict[str, Any]:
    """The content of a conf/report YAML for a study that has none: all its figures, by name."""
    return {"figures": [{"file": path.stem} for path in sorted((results / name / "figures").glob("*.png"))]}


def study(name: str, spec: dict[str, Any], results: Path, profile: str) -> dict[str, Any]:
    """Everything that the page shows of one study."""
    for key in spec:
        if key not in SECTIONS:
            raise ConfigError(f"conf/report/{name}.yaml: {key}: unknown key{did_you_mean(key, SECTIONS)}")
    folder = results / str(spec.get("study", name))
    if not folder.is_dir():
        raise AtlasError(f"{folder}: no such folder; run the study's stages (dvc repro)")
    tables = Tables(folder)
    chosen = {part: of_profile(spec.get(part) or [], profile) for part in PARTS}
    lines = headlines(tables, chosen["headlines"])
    aims = of_profile([spec["targets"]] if spec.get("targets") else [], profile)
    return {
        "name": name,
        "folder": folder.name,
        "title": spec.get("title", name),
        "paper": spec.get("paper", ""),
        "intro": spec.get("intro", ""),
        "notes": notes(spec.get("notes") or [], profile),
        "about": about(folder / "metrics.json"),
        "headlines": lines,
        "targets": [line for aim in aims for line in targets(tables, aim["lines"], lines)],
        "tables": [table(tables, entry) for entry in chosen["tables"]],
        "summaries": [summary(tables, entry) for entry in chosen["summaries"]],
        "figures": [figure(folder, entry) for entry in chosen["figures"]],
        "files": sorted(tables.frames),
    }


def of_profile(entries: list[Any], profile: str) -> list[Any]:
    """The entries that belong to a profile."""
    return [e for e in entries if isinstance(e, str) or is_shown(e, profile)]


def notes(entries: list[Any], profile: str) -> list[str]:
    """Texts; {text, profiles} is shown only in those profiles."""
    return [e if isinstance(e, str) else str(e["text"]) for e in of_profile(entries, profile)]


def about(path: Path) -> list[tuple[str, str]]:
    """The `about` part of metrics.json as label and text."""
    if not path.exists():
        return []
    table = read_json(path, "run the metrics stage again")
    values = table.get("about", {}) if isinstance(table, dict) else None
    if not isinstance(values, dict):
        raise AtlasError(f"{path}: not a summary of metrics; run the metrics stage again")
    rows = []
    for key, value in values.items():
        if isinstance(value, dict):
            value = ", ".join(f"{v:,} {k}" for k, v in value.items())
        elif isinstance(value, int):
            value = f"{value:,}"
        elif isinstance(value, float):
            value = f"{value:.2f}"
        if value not in ("", None):
            rows.append((key.replace("_", " "), str(value)))
    return rows


def table(tables: Tables, entry: Mapping[str, Any]) -> dict[str, Any]:
    """A table of the paper: the paper's number and ours in each cell, one row per model.

    {title, table, caption, factor, digits, where, sparse, columns: [{label, where, factor, digits}],
    rows: [{label, models, where, paper: [numbers in the order of the columns]}], others: models, claims:
    [{row, column, and a claim over the labels of rows}], absent}; others: one more row for each alignment of
    these models that no row names; with `sparse` a cell without a matching row is empty, but not
    all cells may be. absent: the caption if the study has no such table; then only the paper's numbers are
    shown.
    """
    title = str(needed(entry, "title", "tables"))
    name = str(needed(entry, "table", title))
    columns = list(needed(entry, "columns", title))
    absent = "absent" in entry and name not in tables.frames
    rows, footnotes = [], []
    numbers: dict[tuple[str, str], Number] = {}
    for spec in [*needed(entry, "rows", title), *_others(tables, name, entry)]:
        models = list(needed(spec, "models", title))
        label = str(spec.get("label", models[0]))
        paper = [str(value) for value in spec.get("paper") or []]
        if len(paper) > len(columns):
            raise ConfigError(
                f"conf/report: {title}: row '{label}': paper: {len(paper)} numbers for {len(columns)} columns"
            )
        paper += [""] * (len(columns) - len(paper))
        own = dict(spec.get("where") or {})
        where = {"model": models} | dict(entry.get("where") or {}) | own
        present = not absent and bool(len(tables.rows(name, where)))
        cells: list[dict[str, Any]] = []
        for column, papers in zip(columns, paper, strict=True):
            ours = Quote(value="")
            if present:
                where = {"model": models} | dict(entry.get("where") or {}) | own | dict(column["where"])
                found = tables.rows(name, where)
                if not (found.empty and entry.get("sparse")):
                    row = pick(found, "overall", f"{title}, {label}, {column['label']}")
                    factor = float(column.get("factor", entry.get("factor", 1)))
                    digits = int(column.get("digits", entry.get("digits", 2)))
                    ours = quote(row, factor, digits)
                    numbers[label, str(column["label"])] = Number.of(row, factor, digits)
            if ours.note and ours.note not in footnotes:
                footnotes.append(ours.note)
            cells.append({"paper": papers, "ours": ours})
        rows.append({"label": label, "cells": cells, "n": cells[0]["ours"].n, "present": present})
    if not absent and not numbers:
        raise AtlasError(f"report: {title}: no row of table '{name}' matches; correct `where` in conf/report")
    return {
        "title": title,
        "caption": str(entry.get("absent" if absent else "caption", "")),
        "columns": [str(c["label"]) for c in columns],
        "rows": rows,
        "footnotes": footnotes,
        "claims": [_table_claim(one, rows, entry, numbers, title) for one in entry.get("claims") or []],
    }


def _others(tables: Tables, name: str, entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each alignment of the models `others` that the table has and no row names."""
    if "others" not in entry or name not in tables.frames:
        return []
    models = list(entry["others"])
    found = tables.rows(name, {**(entry.get("where") or {}), "model": models, "alignment": "?*"})
    named = {(row.get("where") or {}).get("alignment") for row in entry["rows"]}
    return [
        {"label": alignment, "models": models, "where": {"alignment": alignment}}
        for alignment in dict.fromkeys(found["alignment"])
        if alignment not in named
    ]


def _table_claim(
    entry: Mapping[str, Any],
    rows: list[dict[str, Any]],
    table: Mapping[str, Any],
    numbers: Mapping[tuple[str, str], Number],
    title: str,
) -> tuple[str, Outcome]:
    """{row, column, greater_than | less_than: labels of rows} -> what is compared, and the outcome."""
    row, column = str(needed(entry, "row", title)), str(needed(entry, "column", title))
    for key, name, known in (
        ("row", row, [r["label"] for r in rows]),
        ("column", column, [str(c["label"]) for c in table["columns"]]),
    ):
        if name not in known:
            raise ConfigError(
                f"conf/report: {title}: claims: {key}: unknown '{name}'{did_you_mean(name, known)}"
            )
    nothing = Number(float("nan"))
    there = {r["label"]: numbers.get((r["label"], column), nothing) for r in rows}
    claim = {k: v for k, v in entry.items() if k not in ("row", "column")}
    return f"{column}, {row}", judge(claim, there[row], there, title)


def summary(tables: Tables, entry: Mapping[str, Any]) -> dict[str, Any]:
    """All matching rows of a measure: mean over heads, highest head, chance. {title, table, where, ...}"""
    from attention_atlas.measures.table import FACETS

    title = str(needed(entry, "title", "summaries"))
    rows = tables.rows(str(needed(entry, "table", title)), entry.get("where") or {})
    if rows.empty:
        raise AtlasError(f"report: {title}: no rows match; correct `where` in conf/report")
    factor, digits = float(entry.get("factor", 1)), int(entry.get("digits", 2))
    lines = []
    for (kind, *_), part in rows.groupby(["kind", "condition", *FACETS], sort=False):
        overall = quote(pick(part, "overall", title), factor, digits)
        heads = part[part["head"] >= 0]
        best = (
            quote(pick(part, "highest head", title), factor, digits) if heads["value"].notna().any() else None
        )
        lines.append({"kind": kind, "condition": row_label(part.iloc[0]), "overall": overall, "best": best})
    return {"title": title, "caption": str(entry.get("caption", "")), "lines": lines}


def figure(folder: Path, entry: Mapping[str, Any]) -> dict[str, Any]:
    """{file, title, caption} with the PNG as base64, and the path of the PDF relative to the page."""
    name = str(needed(entry, "file", "figures"))
    png = folder / "figures" / f"{name}.png"
    if not png.exists():
        raise AtlasError(f"{png}: no such figure; run the plot stage, or correct conf/report")
    content = png.read_bytes()
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise AtlasError(f"{png}: not a PNG image; run the plot stage again")
    return {
        "title": str(entry.get("title", name)),
        "caption": str(entry.get("caption", "")),
        "data": base64.b64encode(content).decode("ascii"),
        # The PNG's header contains its width; all figures are shown at one scale.
        "width": round(int.from_bytes(content[16:20], "big") * SCREEN),
        "pdf": f"{folder.name}/figures/{name}.pdf",
    }
