"""Drawing all figures of a study: each is a function of the metric table, chosen by `_target_` in a YAML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.figures.style import save, style
from attention_atlas.metrics.table import read_table


def draw_all(figures: Mapping[str, Any], metrics_csv: str | Path, out: str | Path) -> list[Path]:
    """Draw every figure of conf/figure/<study>.yaml (name -> {_target_: function(table, ...), settings}) and
    write `<out>/<name>.png` and `.pdf`. Returns the paths, in the YAML's order.

    Raises AtlasError naming the figure when the table lacks what it needs; nothing is drawn from elsewhere.
    """
    from hydra.utils import instantiate
    from matplotlib.figure import Figure

    table = read_table(metrics_csv)
    if not figures:
        raise ConfigError("conf/figure: names no figures; add at least one")
    paths: list[Path] = []
    with style():
        for name, entry in figures.items():
            try:
                figure = instantiate(entry, _partial_=True)(table)
            except AtlasError as error:
                raise AtlasError(f"{metrics_csv}: figure '{name}': {error}") from None
            if not isinstance(figure, Figure):
                raise ConfigError(
                    f"conf/figure: {name}: its function gave {type(figure).__name__}; return a Figure"
                )
            paths += save(figure, Path(out) / str(name))
    return paths
