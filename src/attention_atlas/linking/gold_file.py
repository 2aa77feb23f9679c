"""Gold regions of each phrase, from a rendered world or from a user's CSV file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Phrase
from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import NounPhrase
from attention_atlas.linking.align import match_phrases
from attention_atlas.linking.base import LinkContext


@dataclass
class GoldSpan:
    """A manually linked phrase: characters [start, end) of the text and its regions (none = unlinkable)."""

    start: int
    end: int
    regions: frozenset[int] = frozenset()
    objects: frozenset[int] = frozenset()


@dataclass
class GoldPhrase:
    """Gold of one parsed phrase. `how` it was matched: span, head, members, or '' without gold."""

    regions: frozenset[int]
    how: str


def read_gold_csv(path: str | Path) -> dict[str, list[GoldSpan]]:
    """Read a user's gold links: {example id: spans}.

    Columns: `example_id`; `start`, `end` (character offsets into the text, end exclusive); and `regions`
    (0-based indices into the image's regions in features.h5) or `objects` (SceneObject ids), several
    separated by spaces, empty for a phrase without any. Raises AtlasError naming line and column.
    """
    path = Path(path)
    if not path.exists():
        raise AtlasError(f"{path}: no such file; give a CSV with example_id,start,end,regions")
    gold: dict[str, list[GoldSpan]] = {}
    columns, rows = csv_rows(path)
    for name in ("example_id", "start", "end"):
        if name not in columns:
            raise AtlasError(f"{path}: {name}: column is missing; expected example_id,start,end,regions")
    if not {"regions", "objects"} & set(columns):
        raise AtlasError(f"{path}: regions: column is missing; add it, or a column objects")
    for line, row in rows:
        where = f"{path}: line {line}"
        span = GoldSpan(
            _numbers(row["start"], f"{where}: start", 1)[0],
            _numbers(row["end"], f"{where}: end", 1)[0],
            frozenset(_numbers(row.get("regions"), f"{where}: regions")),
            frozenset(_numbers(row.get("objects"), f"{where}: objects")),
        )
        if not span.start < span.end:
            raise AtlasError(f"{where}: end: {span.end} is not after start {span.start}; correct it")
        gold.setdefault(row["example_id"], []).append(span)
    if not gold:
        raise AtlasError(f"{path}: has no rows; add one per phrase")
    return gold


def _numbers(text: str | None, where: str, count: int | None = None) -> list[int]:
    parts = (text or "").split()
    if not all(p.isdecimal() for p in parts) or (count is not None and len(parts) != count):
        wanted = "one whole number" if count == 1 else "whole numbers separated by spaces"
        raise AtlasError(f"{where}: '{text or ''}' is not {wanted}; correct it")
    return [int(p) for p in parts]


def gold_spans(phrases: Iterable[Phrase]) -> list[GoldSpan]:
    """Gold phrases of a rendered world in the same format."""
    return [GoldSpan(p.start, p.end, objects=frozenset(p.objects)) for p in phrases]


def gold_of_context(
    context: LinkContext, phrases: Sequence[NounPhrase], spans: Sequence[GoldSpan]
) -> list[GoldPhrase]:
    """Gold regions of each parsed phrase (alignment: align.py). Several regions may show one object.

    Raises AtlasError if a gold region does not exist in the image.
    """
    count = context.regions.count
    shown = context.regions.gold[:count]
    per_span = []
    for span in spans:
        outside = [r for r in span.regions if r >= count]
        if outside:
            raise AtlasError(
                f"gold: example '{context.parse.id}': regions: {outside[0]} does not exist, the image has "
                f"{count}; correct the gold file"
            )
        of_objects = np.flatnonzero(np.isin(shown, sorted(span.objects)))
        per_span.append(span.regions | frozenset(int(r) for r in of_objects))
    matches = match_phrases(context.parse, phrases, [(s.start, s.end) for s in spans])
    return [GoldPhrase(frozenset(r for i in found for r in per_span[i]), how) for found, how in matches]
