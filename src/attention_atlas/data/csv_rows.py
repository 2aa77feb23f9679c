"""Reading hand-written CSV files, and tab-separated files without quoting."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from attention_atlas.errors import AtlasError


def csv_rows(
    path: Path, delimiter: str = ",", quoted: bool = True
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Column names, and (line number, row) of a UTF-8 file with a header (a byte order mark is dropped).

    quoted: fields in quotation marks may contain delimiters and line breaks; otherwise quotation marks are
    literal. Skips empty lines. Raises AtlasError, with the line, for a file that is not UTF-8, an unclosed
    quotation mark, two columns with the same name, or a row with more or fewer fields than the header.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:  # missing, or a folder
        raise AtlasError(f"{path}: {str(error.strerror).lower()}; give a CSV file") from None
    except UnicodeDecodeError as error:
        raise AtlasError(f"{path}: not UTF-8 (byte {error.start}); save it as 'CSV UTF-8'") from None
    # strict: an unclosed quotation mark is an error, not a field that contains all following rows.
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=quoted,
    )
    columns: list[str] = []
    rows: list[tuple[int, dict[str, str]]] = []
    while True:
        line = reader.line_num + 1  # first line of the row, which may span several
        try:
            fields = next(reader)
        except StopIteration:
            return columns, rows
        except csv.Error as error:
            remedy = "close each quotation mark, and double those inside a quoted text"
            raise AtlasError(f"{path}: line {line}: {error}; {remedy if quoted else 'correct it'}") from None
        if not fields:
            continue
        if not columns:
            columns = [name.strip() for name in fields]
            for i, name in enumerate(columns):
                if name in columns[:i]:
                    raise AtlasError(f"{path}: line {line}: column '{name}' occurs twice; rename one")
            continue
        if len(fields) != len(columns):
            remedy = "put texts with commas in quotation marks" if quoted else "download the file again"
            raise AtlasError(
                f"{path}: line {line}: {len(fields)} fields, the header has {len(columns)}; {remedy}"
            )
        rows.append((line, dict(zip(columns, fields, strict=True))))
