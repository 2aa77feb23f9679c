"""`links.jsonl`: the regions linked to each noun phrase. The only module that writes and reads it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from attention_atlas.errors import AtlasError, reading
from attention_atlas.files import read_jsonl, write_jsonl


@dataclass
class PhraseLink:
    """Token span [start, end), its words, the linked regions (ascending) and the highest similarity."""

    start: int
    end: int
    text: str
    regions: list[int]
    score: float


@dataclass
class Links:
    """All links of one example by one method, without the phrases that could not be linked."""

    id: str
    method: str
    links: list[PhraseLink] = field(default_factory=list)


def write_links(path: str | Path, links: Iterable[Links]) -> None:
    """Write one example per line, atomically. Scores keep six decimals."""
    rows = []
    for item in links:
        row = dataclasses.asdict(item)
        for entry in row["links"]:
            entry["score"] = round(entry["score"], 6)
        rows.append(row)
    write_jsonl(path, rows)


def read_links(path: str | Path) -> list[Links]:
    """Read and validate. Raises AtlasError for a missing file or field, a duplicate (id, method), an empty
    span or a link without regions."""
    result: list[Links] = []
    seen: set[tuple[str, str]] = set()
    for line, row in read_jsonl(path):
        where = f"{path}: line {line}"
        with reading(where, "write the file again"):
            item = Links(row["id"], row["method"], [PhraseLink(**entry) for entry in row["links"]])
            for entry in item.links:
                int(entry.start), int(entry.end), [int(region) for region in entry.regions]
        if (item.id, item.method) in seen:
            raise AtlasError(f"{where}: id: '{item.id}' occurs twice for {item.method}; write the file again")
        seen.add((item.id, item.method))
        for entry in item.links:
            if not 0 <= entry.start < entry.end or not entry.regions or min(entry.regions) < 0:
                raise AtlasError(
                    f"{where}: links: '{entry.text}' has span [{entry.start},{entry.end}] and regions "
                    f"{entry.regions}; write the file again"
                )
        result.append(item)
    return result
