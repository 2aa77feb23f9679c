"""Reading the dumps of study 5 (attention_atlas/studies/vlm_phases/run.py): one model over one data set."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, resampling_matrix
from attention_atlas.recording import Axis, StatisticsStore
from attention_atlas.studies.vlm_phases.run import ABOUT, KEY, KIND, STATISTICS

FIELDS = (
    *("model", "data", "grid", "layers", "groups", "rows", "conditions", "counts", "pieces", "samples"),
    *("pairs", "pictures"),
)


class Dump:
    """One folder of `dump_phases`; a context manager. Raises AtlasError for a missing or broken file."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / ABOUT
        if not path.exists():
            raise AtlasError(f"{path}: no such file; run the stage that writes it (dvc repro)")
        try:
            self.about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise AtlasError(f"{path}: not JSON; run the dump again") from None
        for name in FIELDS:
            if name not in self.about:
                raise AtlasError(f"{path}: {name}: field is missing; run the dump again")
        self.store = StatisticsStore(self.folder / STATISTICS)
        self.model, self.data = str(self.about["model"]), str(self.about["data"])
        self.layers = int(self.about["layers"])

    def __enter__(self) -> Dump:
        self.store.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.store.__exit__(*error)

    def samples(self, part: str) -> list[dict[str, str]]:
        """The samples that `part` (context, lens, norm, knockout) was measured on, in their order."""
        return list(self.about["samples"][: int(self.about["counts"][part])])

    def images(self, part: str) -> np.ndarray:
        return np.array([s["image_id"] for s in self.samples(part)])

    def read(self, part: str, name: str) -> list[np.ndarray]:
        """Array `name` of every sample of `part`; their lengths may differ."""
        return [self.store.read(s["id"], KIND, name) for s in self.samples(part)]

    def axis(self, id: str) -> Axis:
        return self.store.axis(id, KEY)

    @property
    def base(self) -> dict[str, Any]:
        return {"model": self.model, "data": self.data}


def group_sums(images: Sequence[str] | np.ndarray, value_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numerator and denominator per image of the mean over samples; NaN values are left out."""
    _, image_N = np.unique(np.asarray(images, dtype=str), return_inverse=True)
    shape = (int(image_N.max()) + 1, *value_NC.shape[1:])
    num, den = np.zeros(shape), np.zeros(shape)
    there = ~np.isnan(value_NC)
    np.add.at(num, image_N, np.where(there, value_NC, 0.0))
    np.add.at(den, image_N, there.astype(float))
    return num, den


def mean_rows(
    value_NC: np.ndarray,
    images: Sequence[str] | np.ndarray,
    base: Mapping[str, Any],
    *,
    chance_NC: np.ndarray | float | None = None,
    layers: Sequence[int] = (),
    spread: bool = False,
    resamples: int = 2000,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of the mean over samples for each column of (N,C), with a bootstrap interval over images; `n`
    counts samples. layers: `layer` of each column (default −1). chance: per sample, or one number. `spread`
    adds a row with statistic `sd`, the standard deviation over samples (n − 1), which the paper shades."""
    num, den = group_sums(images, value_NC)
    value = ratio(num, den)
    low, high = interval(resampled_ratio(num, den, resampling_matrix(len(num), resamples, seed)))
    count = (~np.isnan(value_NC)).sum(0)
    rows: list[dict[str, Any]] = []
    for c in range(value_NC.shape[1]):
        at = dict(base) | {"layer": int(layers[c]) if len(layers) else -1, "n": int(count[c])}
        row = at | {"value": float(value[c]), "ci_low": float(low[c]), "ci_high": float(high[c])}
        if isinstance(chance_NC, np.ndarray):
            row["chance"] = float(np.nanmean(chance_NC[:, c])) if count[c] else float("nan")
        elif chance_NC is not None:
            row["chance"] = float(chance_NC)
        rows.append(row)
        if spread:
            sd = float(np.nanstd(value_NC[:, c], ddof=1)) if count[c] > 1 else float("nan")
            rows.append(at | {"statistic": "sd", "value": sd})
    return rows
