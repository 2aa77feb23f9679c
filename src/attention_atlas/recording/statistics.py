"""statistics.h5: the statistics that a fused capture stores instead of matrices.

Per example and kind: `mass` (L,H,Q,G) share of attention on each source group, `entropy` (L,H,Q) in nats,
`lse` (L,H,Q) log of the softmax denominator, and other requested statistics (`rows`, `pairs`, `received`,
`norm`, ...; docs/capture.md); `layers` (L,) numbers of the model's layers, unless they are 0, 1, ..., L − 1.
Floats are float32. Group names are in /groups/<key axis>.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.recording.axis import Axis, write_axis
from attention_atlas.recording.header import WORK, groups_of
from attention_atlas.recording.reader import StoreReader
from attention_atlas.recording.shards import Fill, ShardWriter, create


class StatisticsWriter(ShardWriter):
    """Writes statistics.h5; resumable like AttentionWriter. groups: {key axis: names of its G groups}."""

    schema = "atlas.statistics/1"

    def __init__(
        self,
        path: str | Path,
        *,
        model: str,
        config_hash: str,
        convention: str = "used",
        kinds: Mapping[str, tuple[str, str]],
        groups: Mapping[str, Sequence[str]],
        filter: str = "bitshuffle",
        work: str = "",
    ) -> None:
        attrs = {"model": model, "config_hash": config_hash, "convention": convention}
        attrs |= {WORK: work} if work else {}
        names = {axis: [str(n) for n in values] for axis, values in groups.items()}
        super().__init__(path, attrs=attrs, kinds=dict(kinds), groups=names, filter=filter)

    def write(
        self, id: str, statistics: Mapping[str, Mapping[str, np.ndarray]], axes: Mapping[str, Axis]
    ) -> None:
        """Add one example: statistics {kind: {name: array}}. Raises AtlasError on NaN or a wrong shape.

        lse may be −inf (a query that sees nothing); every other value must be finite.
        """
        self._write_example(id, self._fill(id, statistics, axes))

    def _fill(self, id: str, statistics: Mapping[str, Any], axes: Mapping[str, Axis]) -> Fill:
        arrays = {
            kind: {name: self._check(id, kind, name, np.asarray(a), axes) for name, a in values.items()}
            for kind, values in statistics.items()
        }

        def fill(file: h5py.File) -> None:
            for kind in sorted(arrays):
                group = file.create_group(kind)
                for name in sorted(arrays[kind]):
                    create(group, name, arrays[kind][name], self.filter)
            for name in sorted(axes):
                write_axis(file.create_group(f"axes/{name}"), axes[name])

        return fill

    def _check(
        self, id: str, kind: str, name: str, array: np.ndarray, axes: Mapping[str, Axis]
    ) -> np.ndarray:
        where = f"{self.path}: examples/{id}/{kind}/{name}"
        if kind not in self.kinds:
            raise AtlasError(f"{where}: unknown kind{did_you_mean(kind, self.kinds)}")
        query_axis, key_axis = self.kinds[kind]
        for axis in (query_axis, key_axis):
            if axis not in axes:
                raise AtlasError(f"{where}: axis '{axis}' is missing{did_you_mean(axis, axes)}")
        if name in ("mass", "entropy", "lse") and array.shape[2:3] != (len(axes[query_axis]),):
            raise AtlasError(
                f"{where}: shape {array.shape} does not match {len(axes[query_axis])} query tokens; "
                "give (L,H,Q,...)"
            )
        if name == "mass" and array.shape[3:] != (len(self.groups.get(key_axis, ())),):
            raise AtlasError(f"{where}: shape {array.shape} does not match the groups of '{key_axis}'")
        finite = np.isfinite(array) | (np.isneginf(array) if name == "lse" else False)
        if not finite.all():
            raise AtlasError(f"{where}: NaN or infinity; check the model's weights and mask")
        return array.astype(np.float32) if array.dtype == np.float64 else array


class StatisticsStore(StoreReader):
    """Reads statistics.h5: `.ids`, `.kinds`, `.attrs`, `.groups` {key axis: names}."""

    schema = "atlas.statistics/1"

    def __init__(self, path: str | Path, config_hash: str | None = None, partial: bool = False) -> None:
        super().__init__(path, config_hash, partial)
        self.groups = groups_of(self._file)

    def names(self, id: str, kind: str) -> list[str]:
        return sorted(self._kind(id, kind))

    def read(self, id: str, kind: str, name: str) -> np.ndarray:
        group = self._kind(id, kind)
        if name not in group:
            raise AtlasError(f"{self.path}: examples/{id}/{kind}: no '{name}'{did_you_mean(name, group)}")
        where = f"examples/{id}/{kind}/{name}"
        data = self._load(group[name], (), where)
        return data if name == "lse" else self._checked(data, where)
