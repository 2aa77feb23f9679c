"""attention.h5: whole attention matrices, one dataset (L,H,Q,K) per example and kind.

Teacher forcing: with words w1..wn the query axis `target` is [w1..wn, EOS] (row i generates w(i+1)) and the
key axis `source` is [BOS, w1..wn]. Masked entries are 0. Values are float16: row sums deviate by up to 4e-4
and weights below 6e-8 become 0, so compute statistics that must be exact before storing.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.recording.axis import Axis, write_axis
from attention_atlas.recording.header import WORK
from attention_atlas.recording.reader import StoreReader
from attention_atlas.recording.shards import Fill, ShardWriter, create, first_bad

CONVENTIONS = ("used", "unnormalised")


class AttentionWriter(ShardWriter):
    """Writes attention.h5; resumable, see shards.py. `filter`: bitshuffle | gzip | none.

    kinds: {kind: (query axis, key axis)}. `.done`: ids already written.
    """

    schema = "atlas.attention/1"

    def __init__(
        self,
        path: str | Path,
        *,
        model: str,
        config_hash: str,
        convention: str = "used",
        kinds: Mapping[str, tuple[str, str]],
        filter: str = "bitshuffle",
        work: str = "",
    ) -> None:
        if convention not in CONVENTIONS:
            raise AtlasError(f"{path}: convention: '{convention}'{did_you_mean(convention, CONVENTIONS)}")
        attrs = {"model": model, "config_hash": config_hash, "convention": convention}
        attrs |= {WORK: work} if work else {}
        super().__init__(path, attrs=attrs, kinds=dict(kinds), filter=filter)

    def write(self, id: str, attn: Mapping[str, np.ndarray], axes: Mapping[str, Axis]) -> None:
        """Add one example: attn {kind: (L,H,Q,K)}, axes {axis: Axis}. Raises AtlasError for NaN or a shape
        that does not match its axes."""
        self._write_example(id, self._fill(id, attn, axes))

    def _fill(self, id: str, attn: Mapping[str, Any], axes: Mapping[str, Axis]) -> Fill:
        half = {kind: self._check(id, kind, np.asarray(value), axes) for kind, value in attn.items()}

        def fill(file: h5py.File) -> None:
            for kind in sorted(half):
                create(file, kind, half[kind], self.filter)
            for name in sorted(axes):
                write_axis(file.create_group(f"axes/{name}"), axes[name])

        return fill

    def _check(self, id: str, kind: str, attn: np.ndarray, axes: Mapping[str, Axis]) -> np.ndarray:
        where = f"{self.path}: examples/{id}/{kind}"
        if kind not in self.kinds:
            raise AtlasError(f"{where}: unknown kind{did_you_mean(kind, self.kinds)}")
        for axis in self.kinds[kind]:
            if axis not in axes:
                raise AtlasError(f"{where}: axis '{axis}' is missing{did_you_mean(axis, axes)}")
        query, key = (len(axes[axis]) for axis in self.kinds[kind])
        if attn.ndim != 4 or attn.shape[2:] != (query, key):
            raise AtlasError(
                f"{where}: shape {attn.shape} does not match (L,H,{query},{key}) of its axes; "
                "give one row per query token and one column per key token"
            )
        bad = first_bad(attn)
        if bad is not None:
            raise AtlasError(f"{where}: NaN or infinity at {bad}; check the model's weights and mask")
        return attn if attn.dtype == np.float16 else attn.astype(np.float16)


class AttentionStore(StoreReader):
    """Reads attention.h5: `.ids`, `.kinds` {kind: (query axis, key axis)}, `.attrs`."""

    schema = "atlas.attention/1"

    def shape(self, id: str, kind: str) -> tuple[int, int, int, int]:
        return self._kind(id, kind).shape

    def read(
        self,
        id: str,
        kind: str,
        layers: int | Iterable[int] | None = None,
        rows: int | slice | Iterable[int] | None = None,
    ) -> np.ndarray:
        """Attention as float32 (L,H,Q,K) of the selected layers and query rows (ints keep their axis)."""
        dataset, where = self._kind(id, kind), f"examples/{id}/{kind}"
        layer_index, layer_order = _selection(layers, dataset.shape[0], f"{self.path}: layers")
        row_index, row_order = _selection(rows, dataset.shape[2], f"{self.path}: rows")
        if isinstance(layer_index, list) and isinstance(row_index, list):
            # h5py accepts only one list per index.
            data = np.stack([self._load(dataset, layer, where)[:, row_index] for layer in layer_index])
        else:
            data = self._load(dataset, (layer_index, slice(None), row_index), where)
        if layer_order is not None:
            data = data[layer_order]
        if row_order is not None:
            data = data[:, :, row_order]
        return as_float32(self._checked(data, where))

    def validate(self, tolerance: float = 5e-3) -> None:
        """Read everything and check that shapes match the axes, no value is NaN, and rows sum to 1 (or 0
        where nothing is visible)."""
        for id in self.ids:
            for kind, names in self.kinds.items():
                if kind not in self._example(id):
                    continue
                attn_LHQK = self.read(id, kind)
                lengths = tuple(len(self.axis(id, name)) for name in names)
                if attn_LHQK.shape[2:] != lengths:
                    self._fail(f"examples/{id}/{kind}", f"shape {attn_LHQK.shape} but axes {lengths}")
                sums = attn_LHQK.sum(-1)
                wrong = np.minimum(np.abs(sums - 1), np.abs(sums)) > tolerance
                if wrong.any() or (attn_LHQK < 0).any():
                    self._fail(f"examples/{id}/{kind}", "rows are not distributions")


@functools.cache
def _float32_of_half() -> np.ndarray:
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def as_float32(data: np.ndarray) -> np.ndarray:
    """float16 to float32 by a table of all values, which is faster than NumPy's conversion."""
    if data.dtype != np.float16:
        return data.astype(np.float32)
    data = np.ascontiguousarray(data)
    out = np.empty(data.shape, np.float32)
    bits, values, table = data.reshape(-1).view(np.uint16), out.reshape(-1), _float32_of_half()
    # In blocks, so that NumPy's widened copy of the index stays in the cache.
    for start in range(0, bits.size, 2**16):
        part = slice(start, start + 2**16)
        np.take(table, bits[part], out=values[part], mode="clip")
    return out


def _selection(wanted: Any, length: int, what: str) -> tuple[Any, list[int] | None]:
    """An index that h5py accepts (sorted, unique), and the order to restore afterwards."""
    if wanted is None:
        return slice(None), None
    if isinstance(wanted, slice):
        return (wanted, None) if (wanted.step or 1) > 0 else _selection(range(length)[wanted], length, what)
    indices = [int(wanted)] if isinstance(wanted, int | np.integer) else [int(i) for i in wanted]
    for position in indices:
        if not -length <= position < length:
            raise AtlasError(f"{what}: index {position} is outside 0..{length - 1}")
    indices = [position % length for position in indices]
    unique = sorted(set(indices))
    chosen: Any = unique
    if unique and unique == list(range(unique[0], unique[-1] + 1)):
        # A slice reads much faster than a list in h5py.
        chosen = slice(unique[0], unique[-1] + 1)
    return chosen, (None if indices == unique else [unique.index(i) for i in indices])
