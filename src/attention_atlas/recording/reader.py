"""Opening and checking an HDF5 file of the store, with one-line errors.

The file may be an index of shards (index.py), or one that is still being written (`partial`).
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.recording.axis import Axis, read_axis
from attention_atlas.recording.header import WORK, kinds_of
from attention_atlas.recording.shards import HEADER, first_bad

OPEN_SHARDS = 64  # kept open at most: a process may be limited to 1,024 open files, or fewer


class StoreReader:
    """Base of AttentionStore and StatisticsStore. `config_hash`: the expected value, None = any. partial:
    an unfinished file is read too, with the examples that it has so far."""

    schema = ""
    stage = "dump"

    def __init__(self, path: str | Path, config_hash: str | None = None, partial: bool = False) -> None:
        self.path, self.partial = Path(path), partial
        self.part = Path(f"{path}.part")
        self._open_shards: dict[str, h5py.Group] = {}
        self._file = self._open()
        attrs = self._file.attrs
        try:
            if attrs.get("schema") != self.schema:
                self._fail("schema", f"'{attrs.get('schema')}' instead of '{self.schema}'")
            if not attrs.get("complete", False) and not partial:
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
        self.kinds = kinds_of(self._file)
        self._unfinished = "examples" not in self._file
        parts = (p for p in self.part.glob("*.h5") if p.name != HEADER)
        found = (unquote(p.stem) for p in parts) if self._unfinished else self._file["examples"]
        self.ids: list[str] = sorted(found)
        self._known = set(self.ids)

    def _open(self) -> h5py.File:
        path = self.path
        if not path.exists():
            path = self.part / HEADER
            if not path.exists():
                self._fail("file", "no such file")
            if not self.partial:
                self._fail("complete", "incomplete (its .part folder exists)")
        with contextlib.suppress(ImportError):  # not needed for gzip
            import hdf5plugin  # noqa: F401  (registers the filter)
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            self._fail("file", f"truncated or not HDF5 ({error})")
        try:
            self._check_shards(file)
        except AtlasError:
            file.close()
            raise
        return file

    def _check_shards(self, file: h5py.File) -> None:
        """Check that the shards of an index are those that it was written for."""
        if "shards" not in file:
            return
        for name, size in zip(file["shards/name"][()], file["shards/bytes"][()]):
            shard = self.path.parent / name.decode()
            if not shard.exists() or shard.stat().st_size != size:
                self._fail(shard.name, "is not as it was indexed" if shard.exists() else "shard is missing")

    def _fail(self, field: str, what: str) -> Any:
        what = " ".join(what.split())[:300]  # HDF5 writes several lines
        raise AtlasError(f"{self.path}: {field}: {what}; run the {self.stage} stage again (dvc repro)")

    def _example(self, id: str) -> h5py.Group:
        if id not in self._known:
            raise AtlasError(f"{self.path}: id: no example '{id}'{did_you_mean(id, self.ids)}")
        try:
            if self._unfinished:
                return self._kept(h5py.File(self.part / (quote(id, safe="") + ".h5"), "r")["/"])
            group = self._file["examples"][id]
        except (OSError, KeyError) as error:
            self._fail(f"examples/{id}", f"unreadable ({error})")
        return self._kept(group) if "shards" in self._file else group

    def _kept(self, group: h5py.Group) -> h5py.Group:
        """`group`, kept so that its file stays open. If too many are open, the one opened first is closed."""
        name = group.file.filename
        if name not in self._open_shards and len(self._open_shards) >= OPEN_SHARDS:
            self._open_shards.pop(next(iter(self._open_shards))).file.close()
        self._open_shards[name] = group
        return group

    def digest(self) -> str:
        """SHA-256 of all that can be read: attributes, kinds, groups, examples and their values. It does not
        depend on how the file is stored: whole or in shards, with which filter."""
        groups = getattr(self, "groups", {})
        told = {name: value for name, value in self.attrs.items() if name not in ("filter", WORK)}
        total = hashlib.sha256(repr([sorted(told.items()), self.kinds, groups, self.ids]).encode())

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                values = self._load(item, (), name)
                total.update(f"{name}:{item.dtype.str}:{item.shape}".encode() + values.tobytes())

        for id in self.ids:
            self._example(id).visititems(add)
        return total.hexdigest()

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
        while self._open_shards:
            self._open_shards.popitem()[1].file.close()
        self._file.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
