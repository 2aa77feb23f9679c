"""The metric table: the only module that writes, reads and validates it.

One tidy row per number. The columns, in this order (empty cells mean "does not apply"):

| column | meaning |
|---|---|
| `study`, `model`, `data` | name of the study, of the model or run, of the data set |
| `kind` | kind of attention (`cross`, `decoder_self`, ...), or group of related rows of a study |
| `layer`, `head` | 0-based; -1 = all |
| `measure` | what is measured; each study's page in docs/ lists its measures |
| `condition` | variant of the measure: a part of speech, a direction such as `text → image`, ... |
| `alignment` | alignment function of the model |
| `seed` | seed of a single training; empty: mean over seeds |
| `input` | what the model gets in place of its own image: `other`, `blank`, or `none`; empty: its own |
| `group` | subset of the examples, layers or pairs, such as a type of question; empty: all |
| `setting` | value of a quantity that is varied, such as a threshold or the number of pruned heads |
| `against` | the other side of a comparison: a model, alignment, input, group or condition |
| `statistic` | a statistic of the measure (`sd`, `p`, ...); empty: its value, with `against` the difference |
| `value`, `ci_low`, `ci_high` | the number and its 95 % bootstrap interval over images, empty for one image |
| `n` | number of averaged units: phrases, words, relations, questions or heads, depending on the measure |
| `chance` | value of uninformed attention |
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.files import atomic_path

# Facets that `measured` and `rows_of` find only if they are named.
FACETS = ("alignment", "seed", "input", "group", "setting", "against", "statistic")
WHOLE = ("layer", "head", "n")
NUMBERS = ("value", "ci_low", "ci_high", "chance")
KEY = ["study", "model", "data", "kind", "layer", "head", "measure", "condition", *FACETS]
COLUMNS = [*KEY, "value", "ci_low", "ci_high", "n", "chance"]
TEXT = [name for name in KEY if name not in WHOLE]


def make_table(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """A table from dicts; missing text is "", missing layer and head are -1, missing n is 0, other numbers
    are NaN."""
    frame = pd.DataFrame(list(rows))
    unknown = sorted(set(frame.columns) - set(COLUMNS))
    if unknown:
        raise AtlasError(f"metric table: {unknown[0]}: unknown column{did_you_mean(unknown[0], COLUMNS)}")
    frame = frame.reindex(columns=COLUMNS)
    for name in TEXT:
        frame[name] = frame[name].fillna("").astype(str)
    for name in ("layer", "head"):
        frame[name] = frame[name].fillna(-1).astype("int64")
    frame["n"] = frame["n"].fillna(0).astype("int64")
    for name in NUMBERS:
        frame[name] = frame[name].astype("float64")
    return validate(frame)


def validate(frame: pd.DataFrame, where: str = "metric table") -> pd.DataFrame:
    """Return `frame` if it is a metric table; else raise AtlasError naming column and row."""
    if list(frame.columns) != COLUMNS:
        missing = [c for c in COLUMNS if c not in frame.columns]
        extra = [c for c in frame.columns if c not in COLUMNS]
        fault = (
            f"column '{missing[0]}' is missing"
            if missing
            else f"unknown column '{extra[0]}'"
            if extra
            else "columns are in another order"
        )
        raise AtlasError(f"{where}: {fault}; expected {', '.join(COLUMNS)}")
    for name in ("layer", "head"):
        if (frame[name] < -1).any():
            raise AtlasError(f"{where}: {name}: below -1; layers and heads count from 0, -1 means all")
    if (frame["measure"] == "").any():
        row = int((frame["measure"] == "").to_numpy().argmax())
        raise AtlasError(f"{where}: measure: row {row} has no name")
    low = frame["ci_low"] > frame["ci_high"]
    if low.any():
        raise AtlasError(f"{where}: ci_low: row {int(low.to_numpy().argmax())} is above ci_high; recompute")
    twice = frame.duplicated(KEY)
    if twice.any():
        first = frame.loc[twice, KEY].iloc[0]
        named = ", ".join(f"{k}={first[k]}" for k in KEY)
        raise AtlasError(f"{where}: two rows for {named}; keep one")
    return frame


def write_table(path: str | Path, frame: pd.DataFrame) -> None:
    """Write as CSV with six significant digits: enough for figures, and above the noise of float32 sums."""
    validate(frame, str(path))
    with atomic_path(path) as temporary:
        frame.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


def read_table(path: str | Path) -> pd.DataFrame:
    """Read and validate a table. Raises AtlasError for a missing file, wrong columns or wrong types."""
    path = Path(path)
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run the stage that writes it (dvc repro)")
    try:
        # keep_default_na would turn the labels "null" and "NA" into missing values.
        frame = pd.read_csv(path, keep_default_na=False, dtype=str)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError):
        raise AtlasError(f"{path}: not a CSV table; write the file again") from None
    missing = [c for c in COLUMNS if c not in frame.columns]
    if missing:
        raise AtlasError(f"{path}: column '{missing[0]}' is missing; expected {', '.join(COLUMNS)}")
    for name in (*WHOLE, *NUMBERS):
        numbers = pd.to_numeric(frame[name], errors="coerce")
        bad = numbers.isna() & (frame[name] != "") & (frame[name].str.lower() != "nan")
        if name in WHOLE:
            bad |= numbers.isna() | (numbers % 1 != 0)
        if bad.any():
            line = int(bad.to_numpy().argmax())
            raise AtlasError(
                f"{path}: {name}: line {line + 2}: '{frame[name].iloc[line]}' is not a number; fix it"
            )
        frame[name] = numbers.astype("int64" if name in WHOLE else "float64")
    return validate(frame, str(path))


def select(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Rows whose columns equal the given values; a list means any of them, None any value."""
    kept = pd.Series(True, index=frame.index)
    for column, value in where.items():
        if column not in frame.columns:
            raise AtlasError(f"metric table: {column}: no such column{did_you_mean(column, COLUMNS)}")
        if value is None:
            continue
        # Lists come from YAML too, where they are OmegaConf's.
        wanted = [value] if pd.api.types.is_scalar(value) else list(value)
        kept &= frame[column].isin(wanted)
    return frame[kept]


def measured(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """As `select`, with every facet that is not named empty: the rows of a measure itself, without its
    groups, single seeds, differences and p values."""
    return select(frame, **dict.fromkeys(FACETS, "") | where)


def rows_of(frame: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """As `measured`. Raises AtlasError naming the filter if there are no rows."""
    found = measured(frame, **where)
    if found.empty:
        named = ", ".join(f"{k} = {v}" for k, v in where.items())
        raise AtlasError(f"no rows with {named}; run that measure, or correct conf/figure")
    return found


def head_matrix(frame: pd.DataFrame, column: str = "value") -> Any:
    """The (L, H) array of `column` from rows with one number per layer and head.

    Raises AtlasError if a head is missing or occurs twice.
    """
    import numpy as np

    rows = frame[(frame["layer"] >= 0) & (frame["head"] >= 0)]
    if rows.empty:
        raise AtlasError("metric table: no row per layer and head here; run the measure of this figure")
    shape = (int(rows["layer"].max()) + 1, int(rows["head"].max()) + 1)
    matrix, seen = np.full(shape, np.nan), np.zeros(shape, dtype=int)
    at = (rows["layer"].to_numpy(), rows["head"].to_numpy())
    np.add.at(seen, at, 1)
    if (seen != 1).any():
        layer, head = np.argwhere(seen != 1)[0]
        raise AtlasError(f"metric table: layer {layer}, head {head}: {seen[layer, head]} rows, expected 1")
    matrix[at] = rows[column].to_numpy()
    return matrix
