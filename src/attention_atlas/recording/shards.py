"""A resumable writer of HDF5 files.

HDF5 keeps its metadata in memory, so a process killed during a write can leave an unreadable file. Therefore
each example is written to its own small file in the folder `<path>.part/`, under a temporary name, and then
renamed; `finish` copies them, sorted by id and without decompressing, into one file and renames that. The
result depends only on the examples, not on interruptions.

A lock in the folder excludes a second writer. The operating system frees it when the first one ends.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import h5py
import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean, system_error
from attention_atlas.files import hdf5_file, lock, to_disk
from attention_atlas.recording.header import assemble, differences, identity, write_header

if TYPE_CHECKING:
    from filelock import BaseFileLock

FILTERS = ("bitshuffle", "gzip", "none")
CHUNK_BYTES = 2**20
HEADER = "header.h5"
LOCK = "lock"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, a limit on the size of a file

Fill = Callable[[h5py.File], None]


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
            self._compare(header, f"delete {self.part} to start over")
        else:
            for unknown in self.part.glob("*.h5"):  # of an unknown configuration
                unknown.unlink()
            attrs = {**self.attrs, "filter": self.filter}
            self._atomically(header, lambda file: write_header(file, attrs, self.kinds, self.groups))
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
                found = identity(file)
        except (OSError, KeyError) as error:
            raise AtlasError(f"{path}: not readable as {self.schema} ({error}); {remedy}") from None
        for name, is_, wanted in differences(found, self._identity()):
            raise AtlasError(f"{path}: {name}: written with '{is_}', but '{wanted}' is requested; {remedy}")

    def _atomically(self, path: Path, fill: Fill) -> None:
        temporary = path.with_name(path.name + ".tmp")
        with self._space(temporary):
            with hdf5_file(temporary) as (file, _):
                fill(file)
            os.replace(temporary, path)

    @contextlib.contextmanager
    def _space(self, temporary: Path) -> Iterator[None]:
        """Turn the error of a full disk into one line, without leaving `temporary`."""
        try:
            yield
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if error.errno not in NO_SPACE:
                raise system_error(error, self.path) or error from None
            raise AtlasError(
                f"{self.path}: disk: no space left after {len(self.done)} examples, which are kept in "
                f"{self.part}; make space and run the same command to continue"
            ) from None

    def check_id(self, id: str) -> str:
        """The name of an example's file. Raises AtlasError for an id that cannot name one."""
        name = quote(id, safe="") + ".h5"
        if not id or "/" in id or id == "." or len(name) > 240 or name == HEADER:
            raise AtlasError(
                f"{self.path}: id: '{id}' cannot name an example; use one without '/' that has at most 237 "
                "characters when it is quoted as in a URL"
            )
        return name

    def _write_example(self, id: str, fill: Fill) -> None:
        name = self.check_id(id)
        if self._finished:
            if id in self.done:
                return
            raise AtlasError(f"{self.path}: complete without '{id}'; delete it to write it again")
        self._atomically(self.part / name, fill)
        self.done.add(id)

    def _fill(self, id: str, values: Any, axes: Any) -> Fill:
        """A function that writes one example into its file."""
        raise NotImplementedError

    def stored(self, id: str, values: Any, axes: Any) -> dict[str, int]:
        """Bytes that an example would take, by statistic; `axes`: tokens, roles and HDF5's overhead."""
        image, found = io.BytesIO(), dict[str, int]()

        def add(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and not name.startswith("axes/"):
                part = name.partition("/")[2] or "attn"
                found[part] = found.get(part, 0) + item.id.get_storage_size()

        with h5py.File(image, "w") as file:
            self._fill(id, values, axes)(file)
            file.visititems(add)
        return {**found, "axes": image.getbuffer().nbytes - sum(found.values())}

    def finish(self) -> None:
        """Assemble the file from the parts, mark it complete and rename it."""
        if self._finished:
            return
        temporary = self.part / "assembled.tmp"
        parts = {id: (self.part / (quote(id, safe="") + ".h5"), "/") for id in self.done}
        with self._space(temporary):
            shutil.copyfile(self.part / HEADER, temporary)
            assemble(temporary, parts)
            to_disk(temporary)  # the parts are deleted below
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
