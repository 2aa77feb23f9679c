"""The base of metrics: from sums per image to tidy rows.

Axes: I images, L layers, H heads, Q query rows, K keys, B resamples.

A metric implements `measure(item, kind, tally)`, which adds one example's numerators and
denominators to a `Tally`. Everything else (streaming, means over heads and layers, intervals, chance, rows)
is shared. To add a metric, write one class and one entry in a file of conf/metrics/.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import (
    LEAST_IMAGES,
    contributing,
    interval,
    ratio,
    resampled_ratio,
)
from attention_atlas.measures.item import Item
from attention_atlas.measures.table import make_table

if TYPE_CHECKING:
    import pandas as pd

BOS = ("drop", "keep")


class Key(NamedTuple):
    """Identifies a sum: the columns `condition`, `group` and `setting` of its rows, and `measure` if that is
    not the metric's name."""

    condition: str
    group: str = ""
    measure: str = ""
    setting: str = ""


class Sums:
    """Sums per image of one key: num, den (I, L, H) for attention; chance likewise (I, 1, 1)."""

    def __init__(self, images: int, heads: tuple[int, int]) -> None:
        self.num_ILH = np.zeros((images, *heads))
        self.den_ILH = np.zeros((images, *heads))
        self.chance_num_I = np.zeros(images)
        self.chance_den_I = np.zeros(images)
        self.n = 0


class Tally:
    """Sums by key, in the order in which they were added."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.sums: dict[Key, Sums] = {}

    def add(
        self,
        image: int,
        key: Key | str,
        num_LH: np.ndarray,
        den_LH: np.ndarray,
        n: int,
        chance: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        """Add one example: numerator and denominator per head, the number of units in them, and the numerator
        and denominator of uniform attention. `key`: a condition or a whole key."""
        key = Key(key) if isinstance(key, str) else key
        layers, heads = np.broadcast_shapes(num_LH.shape, den_LH.shape)
        if key not in self.sums:
            self.sums[key] = Sums(self.images, (layers, heads))
        sums = self.sums[key]
        if sums.num_ILH.shape[1:] != (layers, heads):
            known = " × ".join(map(str, sums.num_ILH.shape[1:]))
            raise AtlasError(
                f"metric: {key.condition}: an example has {layers} × {heads} layers × heads, earlier ones "
                f"{known}; dump all examples with one model"
            )
        sums.num_ILH[image] += num_LH
        sums.den_ILH[image] += den_LH
        sums.chance_num_I[image] += chance[0]
        sums.chance_den_I[image] += chance[1]
        sums.n += n


class Metric(ABC):
    """Base of all metrics. Subclasses set `name`, `kinds` and implement `measure`."""

    name: str
    kinds: Sequence[str]

    @abstractmethod
    def measure(self, item: Item, kind: str, tally: Tally) -> None:
        """Add the contribution of one example's attention of one kind, `item.kinds[kind]`."""

    def keys(self, tally: Tally) -> list[Key]:
        """The table's keys in order; by default all, in order of first occurrence."""
        return list(tally.sums)

    def rows(self, attention: AnnotatedAttention, kind: str, tally: Tally) -> list[dict[str, Any]]:
        """Rows of one kind. Metrics with derived numbers (correlations) extend this."""
        rows: list[dict[str, Any]] = []
        for key in self.keys(tally):
            sums = tally.sums[key]
            if sums.n == 0:
                continue
            base = self.base(kind, key) | {"n": sums.n}
            rows += head_rows(sums.num_ILH, sums.den_ILH, attention.counts_BI, chance_of(sums), base)
        return rows

    def base(self, kind: str, key: Key) -> dict[str, Any]:
        """The columns that identify the rows of a key."""
        measure = key.measure or self.name
        names = {"condition": key.condition, "group": key.group, "setting": key.setting}
        return {"kind": kind, "measure": measure} | names

    def __call__(self, attention: AnnotatedAttention) -> pd.DataFrame:
        """The metric's table, in one pass over the store."""
        return measure_all({self.name: self}, attention)


def chance_of(sums: Sums) -> float:
    den = sums.chance_den_I.sum()
    return float(sums.chance_num_I.sum() / den) if den else float("nan")


def head_rows(
    num_ILH: np.ndarray, den_ILH: np.ndarray, counts_BI: np.ndarray, chance: float, base: dict[str, Any]
) -> list[dict[str, Any]]:
    """Rows for every head, every layer (mean of its heads) and overall (mean of all heads), with intervals.

    Means ignore heads without a value (denominator 0: no attention on any key that counts). There is no
    interval if only one image contributes.
    """
    value_LH = ratio(num_ILH, den_ILH)
    value_BLH = resampled_ratio(num_ILH, den_ILH, counts_BI, least=1)
    seen_ILH = np.broadcast_to(den_ILH, num_ILH.shape) != 0
    if contributing(seen_ILH.any(axis=(1, 2))) < LEAST_IMAGES:
        value_BLH[:] = np.nan
    layers, heads = value_LH.shape
    rows = [_row(base, -1, -1, _mean(value_LH[None])[0], _mean(value_BLH), chance)]
    for layer in range(layers):
        mean = _mean(value_LH[None, layer])[0]
        if contributing(seen_ILH[:, layer].any(axis=1)) < LEAST_IMAGES:
            value_BLH[:, layer] = np.nan
        rows.append(_row(base, layer, -1, mean, _mean(value_BLH[:, layer]), chance))
    value_BLH[:, contributing(seen_ILH) < LEAST_IMAGES] = np.nan
    low_LH, high_LH = interval(value_BLH)
    for layer in range(layers):
        for head in range(heads):
            at = (layer, head)
            rows.append(
                base
                | {"layer": layer, "head": head, "value": value_LH[at], "chance": chance}
                | {"ci_low": low_LH[at], "ci_high": high_LH[at]}
            )
    return rows


def _mean(values_BC: np.ndarray) -> np.ndarray:
    """(B,) mean over the cells with a value; NaN if there is none."""
    flat = values_BC.reshape(len(values_BC), -1)
    there = ~np.isnan(flat)
    count = there.sum(axis=1)
    total = np.where(there, flat, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(flat), np.nan), where=count > 0)


def _row(
    base: dict[str, Any], layer: int, head: int, value: float, value_B: np.ndarray, chance: float
) -> dict[str, Any]:
    low, high = interval(value_B)
    return base | {
        "layer": layer,
        "head": head,
        "value": float(value),
        "ci_low": float(low),
        "ci_high": float(high),
        "chance": chance,
    }


def measure_all(metrics: Mapping[str, Metric], attention: AnnotatedAttention) -> pd.DataFrame:
    """One table of several metrics, in one pass over the store.

    Raises AtlasError if a metric finds nothing to measure in the whole store.
    """
    kinds = sorted({kind for metric in metrics.values() for kind in metric.kinds})
    tallies = {(name, kind): Tally(attention.images) for name, m in metrics.items() for kind in m.kinds}
    for item, kind in attention.stream(kinds):
        for name, metric in metrics.items():
            if kind in metric.kinds:
                metric.measure(item, kind, tallies[name, kind])
    rows: list[dict[str, Any]] = []
    for name, metric in metrics.items():
        for kind in metric.kinds:
            found = metric.rows(attention, kind, tallies[name, kind])
            if not found:
                raise AtlasError(
                    f"metric '{name}': {kind}: found nothing to measure in {len(attention.ids)} examples "
                    "(no linked phrase, relation or word of that kind); check links, parse and split"
                )
            rows += found
    names = {"study": attention.name, "model": attention.model, "data": attention.data}
    return make_table(names | row for row in rows)


def check_bos(bos: str) -> str:
    if bos not in BOS:
        raise AtlasError(f"metric: bos: '{bos}' is not one of {', '.join(BOS)}")
    return bos
