"""Reading a CSV that a person wrote."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError


def csv_rows(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Column names and rows of a UTF-8 file (a byte order mark is dropped).

    As in csv.DictReader, a row with too few fields has None values and one with too many a None key.
    Raises AtlasError when the file is not UTF-8.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AtlasError(f"{path}: not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return list(reader.fieldnames or []), list(reader)
