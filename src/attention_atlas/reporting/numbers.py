"""Selection of the table rows that a report quotes, and formatting of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

if TYPE_CHECKING:
    import pandas as pd

PICKS = (
    "overall",
    "first layer",
    "last layer",
    "highest layer",
    "lowest layer",
    "highest head",
    "lowest head",
)
NONE = "none"


@dataclass
class Quote:
    """One of our numbers, formatted for the report; empty strings where not applicable. interval: "none" for
    a value without one, such as a mean over a single image."""

    value: str = "—"
    interval: str = ""
    n: str = ""
    chance: str = ""
    where: str = ""
    note: str = ""


class Tables:
    """The metric tables of one study, `<folder>/tables/*.csv`, by file name."""

    def __init__(self, folder: Path) -> None:
        from attention_atlas.measures.table import read_table

        self.folder = folder
        paths = sorted((folder / "tables").glob("*.csv"))
        if not paths:
            raise AtlasError(f"{folder / 'tables'}: contains no tables; run the study's stages (dvc repro)")
        self.frames = {path.stem: read_table(path) for path in paths}

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self.frames:
            raise ConfigError(
                f"conf/report: table '{name}': {self.folder / 'tables'} has no such table"
                f"{did_you_mean(name, self.frames)}; correct the YAML or run its stage"
            )
        return self.frames[name]

    def rows(self, table: str, where: Mapping[str, Any]) -> pd.DataFrame:
        """Rows whose text columns match; a value may be a list of alternatives or contain `*`. A facet
        that is not named must be empty (measures/table.py)."""
        from attention_atlas.measures.table import FACETS, TEXT

        frame = self[table]
        for column, wanted in (dict.fromkeys(FACETS, "") | dict(where)).items():
            if column not in TEXT:
                known = did_you_mean(column, TEXT)
                raise ConfigError(f"conf/report: where: no column '{column}' to match{known}")
            patterns = [str(w) for w in wanted] if isinstance(wanted, list) else [str(wanted)]
            fits = [any(fnmatchcase(str(v), p) for p in patterns) for v in frame[column]]
            frame = frame.loc[fits]  # an empty list in plain brackets would select no columns
        return frame


def pick(rows: pd.DataFrame, which: str, what: str) -> pd.Series:
    """The single row to quote. Raises AtlasError if there is none or more than one."""
    if which not in PICKS:
        raise ConfigError(
            f"conf/report: pick: '{which}'{did_you_mean(which, PICKS)}; one of {', '.join(PICKS)}"
        )
    if which == "overall":
        found = rows[(rows["layer"] == -1) & (rows["head"] == -1)]
    elif which.endswith("head"):
        found = _extreme(rows[rows["head"] >= 0], which)
    else:
        layers = rows[(rows["layer"] >= 0) & (rows["head"] == -1)].sort_values("layer")
        position, _ = which.split()
        found = {"first": layers.head(1), "last": layers.tail(1)}.get(position, _extreme(layers, which))
    if len(found) != 1:
        raise AtlasError(
            f"report: {what}: {len(found)} rows match ({which}), expected 1; correct `where` in conf/report"
        )
    return found.iloc[0]


def _extreme(rows: pd.DataFrame, which: str) -> pd.DataFrame:
    rows = rows[rows["value"].notna()].sort_values(
        ["value", "layer", "head"], ascending=[which.startswith("lowest"), True, True], kind="stable"
    )
    return rows.head(1)


def quote(row: pd.Series, factor: float = 1.0, digits: int = 2, powers: bool = False) -> Quote:
    """Format a row: value, interval, n, chance and layer and head (counted from 1). `powers`: write a value
    that would round to 0.00 as a power of ten (p values)."""
    if math.isnan(row["value"]):
        return Quote(n=count(row["n"]), note=str(row["condition"]))
    # A p value or a standard deviation never has an interval.
    interval = "" if row["statistic"] else NONE
    if not math.isnan(row["ci_low"]):
        low, high = (number(factor * row[c], digits) for c in ("ci_low", "ci_high"))
        interval = f"[{low}, {high}]"
    chance = "" if math.isnan(row["chance"]) else number(factor * row["chance"], digits)
    layer, head = int(row["layer"]), int(row["head"])
    where = "" if layer < 0 else f"layer {layer + 1}" + ("" if head < 0 else f", head {head + 1}")
    return Quote(number(factor * row["value"], digits, powers), interval, count(row["n"]), chance, where)


def row_label(row: pd.Series) -> str:
    """The condition and the facets of a row in words."""
    names = ("condition", "alignment", "seed", "input", "group", "setting", "statistic")
    label = ", ".join(str(row[name]) for name in names if row[name])
    return f"{label} – {row['against']}" if row["against"] else label


def number(value: float, digits: int, powers: bool = False) -> str:
    """Fixed digits and a true minus sign; 0 has none."""
    if powers and value != 0 and abs(value) < 0.5 * 10.0**-digits:
        mantissa, exponent = f"{value:.1e}".split("e")
        raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa} × 10{raised}".replace("-", "−")
    text = f"{value:.{digits}f}"
    return (text.lstrip("-") if float(text) == 0 else text).replace("-", "−")


def count(n: Any) -> str:
    return f"{int(n):,}" if n else ""
