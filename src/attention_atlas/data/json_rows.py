"""Reading annotation files in JSON. Each value is checked on access, so `null` never becomes a text.

Errors name the location (`where`: file and row), the field and a remedy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json

REMEDY = "correct the row or download the file again"


def read_published(path: Path, source: str = "run 'make paper-check' to see where it comes from") -> Any:
    """read_json with a remedy; source: the remedy if the file does not exist."""
    return read_json(path, source if not path.exists() else "download the file again")


def row_list(table: Any, name: str, path: Path, file: str) -> list[Any]:
    """The non-empty list `table[name]`. file: the expected file, for the error message."""
    rows = table.get(name) if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: {name}: is missing or empty; give {file}")
    return rows


def value(row: Any, name: str, where: str) -> Any:
    """`row[name]`, which must exist and not be null."""
    if not isinstance(row, dict):
        raise AtlasError(f"{where}: is {_kind(row)}, not an object with fields; {REMEDY}")
    if row.get(name) is None:
        what = "is null" if name in row else "field is missing"
        raise AtlasError(f"{where}: {name}: {what}; {REMEDY}")
    return row[name]


def text(row: Any, name: str, where: str) -> str:
    """`row[name]`, which must be a string, not a number."""
    found = value(row, name, where)
    if not isinstance(found, str):
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, not text; {REMEDY}")
    return found


def number(row: Any, name: str, where: str) -> int:
    """`row[name]` as an integer: a whole number, or a string of digits."""
    found = value(row, name, where)
    if isinstance(found, str) and found.strip().isdecimal():
        return int(found)
    if isinstance(found, bool) or not isinstance(found, int | float) or found != found // 1:
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, not a whole number; {REMEDY}")
    return int(found)


def real(row: Any, name: str, where: str) -> float:
    """`row[name]`, which must be a number."""
    found = value(row, name, where)
    if isinstance(found, bool) or not isinstance(found, int | float) or not -1e300 < found < 1e300:
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, not a finite number; {REMEDY}")
    return float(found)


def reals(row: Any, name: str, where: str, count: int) -> list[float]:
    """`row[name]`, which must be a list of `count` numbers."""
    found = value(row, name, where)
    if not isinstance(found, list | tuple) or len(found) != count:
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, not {count} numbers; {REMEDY}")
    return [real({name: entry}, name, where) for entry in found]


def identifier(row: Any, name: str, where: str) -> str:
    """`row[name]` as a string, from a non-empty string or a whole number."""
    found = value(row, name, where)
    if isinstance(found, str) and found.strip():
        return found
    return str(number(row, name, where))


def answer(row: Any, name: str, where: str) -> str:
    """`row[name]` as the text of an answer, from a string or a number (0 becomes "0", 2.0 becomes "2")."""
    found = value(row, name, where)
    if isinstance(found, str):
        return found
    if isinstance(found, bool) or not isinstance(found, int | float) or not -1e300 < found < 1e300:
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, neither text nor a number; {REMEDY}")
    return str(int(found) if found == found // 1 else found)


def items(row: Any, name: str, where: str) -> list[Any]:
    """`row[name]`, which must be a non-empty list."""
    found = value(row, name, where)
    if not isinstance(found, list) or not found:
        raise AtlasError(f"{where}: {name}: is {_kind(found)}, not a list with entries; {REMEDY}")
    return found


def _kind(found: Any) -> str:
    """A value for an error message: short, in JSON syntax."""
    shown = json.dumps(found, ensure_ascii=False, default=str)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."
