"""Drawing all figures of a study: each is a function of the metric table, chosen by `_target_` in a YAML."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.table import read_table
from attention_atlas.plotting.style import save, style
from attention_atlas.workflow.params import is_shown

if TYPE_CHECKING:
    import pandas as pd


def draw_all(
    figures: Mapping[str, Any], metrics_csv: str | Path, out: str | Path, workers: int = 1, profile: str = ""
) -> list[Path]:
    """Draw every figure of conf/figure/<study>.yaml (name -> {_target_: function(table, ...), settings}) and
    write `<out>/<name>.png` and `.pdf`. Returns the paths, in the YAML's order. `workers`: processes (0: one
    per core). profile: figures with `profiles` are drawn only for those profiles.

    Raises AtlasError naming the figure when the table lacks the rows it needs; figures use no other source.
    """
    from joblib import Parallel, delayed
    from omegaconf import DictConfig, OmegaConf

    table = read_table(metrics_csv)
    if not figures:
        raise ConfigError("conf/figure: names no figures; add at least one")
    plain: Any = OmegaConf.to_container(figures, resolve=True) if isinstance(figures, DictConfig) else figures
    jobs = [
        delayed(_draw)(name, entry, table, Path(metrics_csv), Path(out))
        for name, entry in of_profile(plain, profile).items()
    ]
    # A process takes two seconds to start, as long as drawing two figures.
    count = max(1, min(workers or os.cpu_count() or 1, len(jobs) // 3))
    return [path for paths in Parallel(count)(jobs) for path in paths]


def of_profile(figures: Mapping[str, Any], profile: str) -> dict[str, Any]:
    """The figures to draw for a profile, with the key `profiles` removed."""
    return {
        str(name): {k: v for k, v in entry.items() if k != "profiles"}
        for name, entry in figures.items()
        if is_shown(entry, profile)
    }


def _draw(name: str, entry: Any, table: pd.DataFrame, metrics_csv: Path, out: Path) -> list[Path]:
    from hydra.utils import instantiate
    from matplotlib.figure import Figure

    with style():
        try:
            figure = instantiate(entry, _partial_=True)(table)
        except AtlasError as error:
            raise AtlasError(f"{metrics_csv}: figure '{name}': {error}") from None
        if not isinstance(figure, Figure):
            raise ConfigError(
                f"conf/figure: {name}: its function returned {type(figure).__name__}; return a Figure"
            )
        return save(figure, out / name)
