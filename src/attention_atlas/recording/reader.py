"""Opening and checking an HDF5 file of the store, with one-line errors."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.recording.axis import Axis, read_axis
from attention_atlas.recording.shards import first_bad


class StoreReader:
    """Base of AttentionStore and StatisticsStore. `config_hash`: the expected value, None = any."""

    schema = ""
    stage = "dump"

    def __init__(self, path: str | Path, config_hash: str | None = None) -> None:
        self.path = Path(path)
        self._file = self._open()
        attrs = self._file.attrs
        try:
            if attrs.get("schema") != self.schema:
                self._fail("schema", f"'{attrs.get('schema')}' instead of '{self.schema}'")
            if not attrs.get("complete", False):
                self._fail("complete", "the file is incomplete")
            if config_hash is not None and attrs["config_hash"] != config_hash:
                self._fail(
                    "config_hash", f"from configuration {attrs['config_hash']}, expected {config_hash}"
                )
        except BaseException:
            self.close()
            raise
        self.attrs: dict[str, Any] = {
            key: value.item() if isinstance(value, np.generic) else value for key, value in attrs.items()
        }
        self.kinds: dict[str, tuple[str, str]] = {
            kind: (str(group.attrs["query_axis"]), str(group.attrs["key_axis"]))
            for kind, group in self._file["kinds"].items()
        }
        self.ids: list[str] = sorted(self._file["examples"])
        self._known = set(self.ids)

    def _open(self) -> h5py.File:
        if not self.path.exists():
            if Path(f"{self.path}.part").exists():
                self._fail("complete", "incomplete (its .part folder exists)")
            self._fail("file", "no such file")
        with contextlib.suppress(ImportError):  # not needed for gzip
            import hdf5plugin  # noqa: F401  (registers the filter)
        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            self._fail("file", f"truncated or not HDF5 ({error})")

    def _fail(self, field: str, what: str) -> Any:
        what = " ".join(what.split())[:300]  # HDF5 writes several lines
        raise AtlasError(f"{self.path}: {field}: {what}; run the {self.stage} stage again (dvc repro)")

    def _example(self, id: str) -> h5py.Group:
        if id not in self._known:
            raise AtlasError(f"{self.path}: id: no example '{id}'{did_you_mean(id, self.ids)}")
        return self._file["examples"][id]

    def kinds_of(self, id: str) -> list[str]:
        """The kinds of this example."""
        return [kind for kind in self.kinds if kind in self._example(id)]

    def _kind(self, id: str, kind: str) -> Any:
        group = self._example(id)
        if kind not in self.kinds:
            raise AtlasError(f"{self.path}: kind: no kind '{kind}'{did_you_mean(kind, self.kinds)}")
        if kind not in group:
            raise AtlasError(f"{self.path}: examples/{id}: has no '{kind}'{did_you_mean(kind, group)}")
        return group[kind]

    def _load(self, dataset: Any, index: Any, where: str) -> np.ndarray:
        """dataset[index], with a one-line error if the file is damaged."""
        try:
            values: np.ndarray = dataset[index]
        except OSError as error:
            self._fail(where, f"unreadable ({error})")
        return values

    def _checked(self, data: np.ndarray, where: str) -> np.ndarray:
        bad = first_bad(data)
        if bad is not None:
            self._fail(where, f"NaN or infinity at {bad}")
        return data

    def axis(self, id: str, axis: str) -> Axis:
        """Tokens, roles and word index of one axis of one example."""
        axes = self._example(id)["axes"]
        if axis not in axes:
            raise AtlasError(f"{self.path}: examples/{id}/axes: no axis '{axis}'{did_you_mean(axis, axes)}")
        return read_axis(axes[axis])

    def __len__(self) -> int:
        return len(self.ids)

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
