"""A common style for all figures, and reproducible files.

Sizes are inches at print size: 3.15 is one column of a two-column page, 6.5 the full text width. Fonts are 7
pt and larger, 6 pt inside cells. The sequential colour map is from ColorBrewer and readable by colour-blind
readers and in greyscale; darker is more, as in the papers. Lines use the Okabe-Ito colours.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError
from attention_atlas.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.15, 6.5
SEQUENTIAL = "YlGnBu"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
GREY = "#666666"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same on every machine
    "font.size": 7.5,
    "axes.titlesize": 8,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.3,
    "figure.dpi": 100,
    "savefig.dpi": 250,
    "pdf.fonttype": 42,  # TrueType fonts: searchable text in the PDF, accepted by publishers
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
}

# Metadata that would otherwise differ between runs.
NO_METADATA = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's defaults plus this style, independent of the user's matplotlibrc."""
    import matplotlib

    defaults: dict[Any, Any] = {
        k: v for k, v in matplotlib.rcParamsDefault.items() if not k.startswith("backend")
    }
    with matplotlib.rc_context(rc={**defaults, **STYLE}):
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure without a GUI backend."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes."""
    # The layout is the same for both files; matplotlib would compute it for each again.
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine("none")
    paths = []
    for suffix, metadata in NO_METADATA.items():
        path = stem.with_name(stem.name + suffix)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata=metadata)
        paths.append(path)
    return paths


def number(value: float, digits: int = 2) -> str:
    """A number for print, with a true minus sign. Raises AtlasError for one that is not finite."""
    import math

    if not math.isfinite(value):
        raise AtlasError("figure: a number in its title is not finite; check the metric table")
    return f"{value:.{digits}f}".replace("-", "−")


def interval(low: float, high: float) -> str:
    """The limits of an interval for print; "none" where there is none (NaN)."""
    return "none" if low != low else f"[{number(low)}, {number(high)}]"


def p_value(p: float) -> str:
    """'p = 0.03' or, below 0.001, 'p = 1.7 × 10⁻⁸'; 'p: none' where there is none (NaN)."""
    if p != p:
        return "p: none"
    if p >= 0.001:
        return f"p = {p:.2g}"
    if p < 1e-99:
        return "p < 10⁻⁹⁹"
    mantissa, exponent = f"{p:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"p = {mantissa} × 10{raised}"
