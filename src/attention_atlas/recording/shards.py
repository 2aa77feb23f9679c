"""A resumable writer of HDF5 files.

HDF5 keeps its metadata in memory, so a process killed during a write can leave an unreadable file. Therefore
each example is written to its own small file in the folder `<path>.part/`, under a temporary name, and then
renamed; `finish` copies them, sorted by id and without decompressing, into one file and renames that. The
result depends only on the examples, not on interruptions.

A lock in the folder excludes a second writer. The operating system frees it when the first one ends.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean, system_error
from attention_atlas.files import hdf5_file, lock

if TYPE_CHECKING:
    from filelock import BaseFileLock

FILTERS = ("bitshuffle", "gzip", "none")
CHUNK_BYTES = 2**20
HEADER = "header.h5"
LOCK = "lock"


def filter_options(name: str) -> dict[str, Any]:
    """Arguments of create_dataset. gzip is slower and larger, but every HDF5 tool can read it."""
    if name == "bitshuffle":
        import hdf5plugin

        return dict(hdf5plugin.Bitshuffle(cname="lz4"))
    if name == "gzip":
        return {"compression": "gzip", "compression_opts": 4, "shuffle": True}
    if name == "none":
        return {}
    raise AtlasError(f"store: filter: unknown filter '{name}'{did_you_mean(name, FILTERS)}")


def row_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunk shape for (L,H,Q,...): whole heads and keys, and as many query rows, then layers, as 1 MiB holds.

    The most common read is one query row of all heads, so a chunk should not contain many more rows.
    """
    layers, heads, queries, *rest = (max(1, n) for n in shape)
    row = heads * int(np.prod(rest)) * itemsize
    if row > CHUNK_BYTES:
        heads = max(1, heads * CHUNK_BYTES // row)
        return (1, heads, 1, *rest)
    rows = min(queries, CHUNK_BYTES // row)
    return (min(layers, max(1, CHUNK_BYTES // (row * rows))), heads, rows, *rest)


def create(group: h5py.Group, name: str, data: np.ndarray, filter: str, chunked: bool = True) -> None:
    """Create a dataset, chunked and filtered if it is large enough to benefit."""
    if chunked and filter != "none" and data.nbytes > 4096 and data.ndim >= 3:
        options = filter_options(filter)
        group.create_dataset(name, data=data, chunks=row_chunks(data.shape, data.itemsize), **options)
    else:
        group.create_dataset(name, data=data)


class ShardWriter:
    """Base of AttentionWriter and StatisticsWriter. `attrs` and `kinds` identify the file: a partial file
    with another identity is refused, and so is a second writer. Unreadable examples of an earlier run are
    dropped and written again."""

    schema = ""

    def __init__(
        self,
        path: str | Path,
        *,
        attrs: dict[str, str],
        kinds: dict[str, tuple[str, str]],
        groups: dict[str, list[str]] | None = None,
        filter: str = "bitshuffle",
    ) -> None:
        filter_options(filter)
        self.path, self.part = Path(path), Path(f"{path}.part")
        self.kinds, self.groups, self.filter = dict(kinds), dict(groups or {}), filter
        self.attrs = {"schema": self.schema, **attrs}
        if "axes" in self.kinds or not self.kinds:
            raise AtlasError(f"{path}: kinds: need at least one kind, none of them named 'axes'")
        self._finished = False
        self._lock: BaseFileLock | None = None
        self.done: set[str] = set()
        try:
            self._open()
        except BaseException as error:
            self.close()
            raise system_error(error, self.path) or error from None

    def _open(self) -> None:
        if not self.path.exists():
            self.part.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.part / LOCK, self.path)
        if self.path.exists():  # another writer may have finished it just before the lock was free
            self._reopen_finished()
            self.close()
            return
        for stray in self.part.glob("*.tmp"):
            stray.unlink()
        header = self.part / HEADER
        if header.exists():
            self._compare(header, "delete it to start over")
        else:
            self._atomically(header, self._write_header)
        for shard in self.part.glob("*.h5"):
            if shard.name == HEADER:
                continue
            if readable(shard):
                self.done.add(unquote(shard.stem))
            else:
                shard.unlink()

    def close(self) -> None:
        """Release the lock, so that another writer can continue this file. `finish` releases it too."""
        if self._lock is not None:
            self._lock.release()

    def _identity(self) -> dict[str, str]:
        values = {**self.attrs, "filter": self.filter}
        values |= {f"kinds/{kind}": " <- ".join(axes) for kind, axes in self.kinds.items()}
        return values | {f"groups/{axis}": ", ".join(names) for axis, names in self.groups.items()}

    def _reopen_finished(self) -> None:
        self._compare(self.path, "delete it to write it again")
        with h5py.File(self.path, "r") as file:
            self.done = set(file["examples"])
        self._finished = True
        # The process was killed after renaming the result and before removing the parts.
        shutil.rmtree(self.part, ignore_errors=True)

    def _compare(self, path: Path, remedy: str) -> None:
        try:
            with h5py.File(path, "r") as file:
                found = {name: file.attrs[name] for name in file.attrs if name != "complete"}
                for kind, group in file["kinds"].items():
                    axes = group.attrs["query_axis"], group.attrs["key_axis"]
                    found[f"kinds/{kind}"] = " <- ".join(axes)
                for axis, names in file.get("groups", {}).items():
                    found[f"groups/{axis}"] = ", ".join(name.decode() for name in names[()])
        except (OSError, KeyError) as error:
            raise AtlasError(f"{path}: not readable as {self.schema} ({error}); {remedy}") from None
        wanted = self._identity()
        for name in sorted(found.keys() | wanted.keys()):
            if found.get(name) != wanted.get(name):
                raise AtlasError(
                    f"{path}: {name}: written with '{found.get(name)}', "
                    f"but '{wanted.get(name)}' is requested; {remedy}"
                )

    def _write_header(self, file: h5py.File) -> None:
        for name, value in {**self.attrs, "filter": self.filter}.items():
            file.attrs[name] = value
        file.attrs["complete"] = False
        for kind, (query_axis, key_axis) in sorted(self.kinds.items()):
            group = file.create_group(f"kinds/{kind}")
            group.attrs["query_axis"], group.attrs["key_axis"] = query_axis, key_axis
        for axis, names in sorted(self.groups.items()):
            file.create_dataset(f"groups/{axis}", data=names, dtype=h5py.string_dtype())

    def _atomically(self, path: Path, fill: Any) -> None:
        temporary = path.with_name(path.name + ".tmp")
        try:
            with hdf5_file(temporary) as (file, _):
                fill(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise system_error(error, self.path) or error from None
        os.replace(temporary, path)

    def _write_example(self, id: str, fill: Any) -> None:
        name = quote(id, safe="") + ".h5"
        if not id or "/" in id or id == "." or len(name) > 240 or name == HEADER:
            raise AtlasError(f"{self.path}: id: '{id}' cannot name an example; use a short id without '/'")
        if self._finished:
            if id in self.done:
                return
            raise AtlasError(f"{self.path}: complete without '{id}'; delete it to write it again")
        self._atomically(self.part / name, fill)
        self.done.add(id)

    def finish(self) -> None:
        """Assemble the file from the parts, mark it complete and rename it."""
        if self._finished:
            return
        temporary = self.part / "assembled.tmp"
        try:
            shutil.copyfile(self.part / HEADER, temporary)
            with hdf5_file(temporary, "r+") as (file, check):
                examples = file.create_group("examples")
                for id in sorted(self.done):
                    with h5py.File(self.part / (quote(id, safe="") + ".h5"), "r") as shard:
                        shard.copy(shard, examples, id)
                    check()
                file.attrs["complete"] = True
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise system_error(error, self.path) or error from None
        os.replace(temporary, self.path)
        self._finished = True
        shutil.rmtree(self.part, ignore_errors=True)
        self.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        if kind is None:
            self.finish()
        self.close()


def readable(path: Path) -> bool:
    """Whether every array of an HDF5 file can be read. After a power failure a file may have its final name
    but not its contents."""

    def read(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            item[()]

    import hdf5plugin  # noqa: F401  (registers the filter)

    try:
        with h5py.File(path, "r") as file:
            file.visititems(read)
    except (OSError, RuntimeError):
        return False
    return True


def first_bad(data: np.ndarray) -> str | None:
    """Where the first NaN or infinity is, as text, or None."""
    # Block by block: a temporary array as large as the data costs more than the comparison.
    for first, block in enumerate(data if data.ndim > 1 else data[None]):
        if block.dtype == np.float16:
            # All exponent bits set; comparing integers is much faster than comparing float16.
            exponent = np.uint16(0x7C00)
            bad = (np.ascontiguousarray(block).view(np.uint16) & exponent) == exponent
        elif np.isfinite(block.sum()):  # not finite if any value is not
            continue
        else:
            bad = ~np.isfinite(block)
        if bad.any():
            place = tuple(int(i) for i in np.argwhere(bad)[0])
            return str((first, *place) if data.ndim > 1 else place)
    return None
