"""Atomic writes, so that a killed run never leaves a partial file; JSON, locks, file lists, digests."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import io
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError, system_error

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to `path` on success, removed on failure. Removes
    files left by killed processes of this machine.

    Raises AtlasError for a full disk and for a place that cannot be written."""
    final = Path(path)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise AtlasError(
            f"{final}: {str(error.strerror).lower()}: {error.filename}; choose another place"
        ) from None
    # Keep the suffix: writers such as matplotlib derive the format from it.
    beginning, end = f".{final.stem}.{platform.node()}-", f".part{final.suffix}"
    for left in final.parent.glob(f"{glob.escape(beginning)}*{glob.escape(end)}"):
        owner = left.name[len(beginning) : -len(end)]
        if owner.isdecimal() and not _is_alive(int(owner)):
            _remove(left)
    temporary = final.with_name(f"{beginning}{os.getpid()}{end}")
    try:
        yield temporary
        os.replace(temporary, final)
    except Exception as error:
        named = {str(temporary): final}.get(str(getattr(error, "filename", "")))
        if named is not None:
            error.filename = str(named)  # type: ignore[attr-defined]
        raise system_error(error, final) or error from None
    finally:
        _remove(temporary)


@contextlib.contextmanager
def results_in(folder: Path) -> Iterator[Path]:
    """Yield an empty folder inside `folder`; on success, its contents replace entries of the same name."""
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=".", suffix=".part", dir=folder))
    except OSError as error:
        raise system_error(error, folder) or error from None
    try:
        yield part
        for new in sorted(part.iterdir()):
            move(new, folder / new.name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        if made and not any(folder.iterdir()):
            folder.rmdir()


def move(source: Path, target: Path) -> None:
    """Rename a file or a folder, replacing `target`; on another file system, copy it under a temporary name
    first. Raises AtlasError for a full disk and for a place that cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir() and target.exists():
            shutil.rmtree(target)
        os.replace(source, target)
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise system_error(error, target) or error from None
    with atomic_path(target) as temporary:
        (shutil.copytree if source.is_dir() else shutil.copyfile)(source, temporary)
    shutil.rmtree(source) if source.is_dir() else source.unlink()


def link(source: Path, target: Path) -> None:
    """Hard-link `target` to `source`, which stays so that a rerun finds it if the stage is killed before its
    end. Without support for hard links, move the file."""
    try:
        with atomic_path(target) as temporary:
            os.link(source, temporary)
    except (OSError, AtlasError):
        move(source, target)


def to_disk(path: Path) -> None:
    """Wait until a file's content has left the caches of the operating system."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # owned by another user
        pass
    return True


def write_text(path: str | Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def read_json(
    path: str | Path, remedy: str = "run the stage that writes it (dvc repro)", schema: str = ""
) -> Any:
    """The value of a UTF-8 JSON file; with `schema` its field "schema" must have that value.

    Raises AtlasError, ending with `remedy`, for a missing file, invalid JSON or another schema."""
    path = Path(path)
    if not path.exists():
        raise AtlasError(f"{path}: no such file; {remedy}")
    with _reading_json(path, remedy):
        value = parsed_json(path.read_text(encoding="utf-8-sig"))
    if schema and (not isinstance(value, dict) or value.get("schema") != schema):
        raise AtlasError(f"{path}: schema: is not {schema}; {remedy}")
    return value


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def read_text(path: str | Path, remedy: str) -> str:
    """The text of a UTF-8 file, without byte order mark. Raises AtlasError for other encodings or no file."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise AtlasError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise AtlasError(f"{path}: {str(error.strerror).lower()}; {remedy}") from None
    except UnicodeDecodeError as error:
        raise AtlasError(f"{path}: not UTF-8 text (byte {error.start}); {remedy}") from None


def read_jsonl(path: str | Path, may_be_empty: bool = False) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value). Raises AtlasError with file and line, or for a file without rows."""
    path = Path(path)
    again = "run the stage that writes it (dvc repro) or correct the path"
    if not path.exists():
        raise AtlasError(f"{path}: no such file; {again}")
    if path.is_dir():
        raise AtlasError(f"{path}: is a folder; {again}")
    number = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            with _reading_json(f"{path}: line {number}", "write the file again"):
                value = parsed_json(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            yield number, value
    if not number and not may_be_empty:
        raise AtlasError(f"{path}: has no rows; {again}")


@contextlib.contextmanager
def _reading_json(where: object, remedy: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RecursionError) as error:  # not UTF-8, not JSON, or nested a thousand times
        raise AtlasError(f"{where}: not JSON ({error}); {remedy}") from None
    except OSError as error:  # a folder, or not readable
        raise AtlasError(f"{where}: {error.strerror}; {remedy}") from None


def parsed_json(text: str) -> Any:
    """`json.loads` that also raises ValueError for a lone surrogate, which UTF-8 cannot encode."""
    value = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


class _Sink(io.FileIO):
    """The file that HDF5 writes to. After a failed write, HDF5 (2.0.0 in h5py 3.16) ends the process with a
    segmentation fault. Therefore failures are hidden from HDF5: data that cannot be written stays in memory
    until the file is closed, and `check` raises the error."""

    failed: OSError | None = None
    kept: list[tuple[int, bytes]]

    def write(self, data: Any) -> int:
        bytes_ = memoryview(data).cast("B")
        place, rest = self.tell(), bytes_
        try:
            while rest and self.failed is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failed, self.kept = error, []
        if self.failed is not None:
            self.kept.append((place, bytes(bytes_)))
            self.seek(place + len(bytes_))
        return len(bytes_)

    def readinto(self, buffer: Any) -> int:
        if self.failed is None:
            return super().readinto(buffer) or 0
        place, into = self.tell(), memoryview(buffer).cast("B")
        into[:] = (super().read(len(into)) or b"").ljust(len(into), b"\0")
        for start, data in self.kept:
            first, last = max(start, place), min(start + len(data), place + len(into))
            if first < last:
                into[first - place : last - place] = data[first - start : last - start]
        self.seek(place + len(into))
        return len(into)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            if self.failed is None:
                self.failed, self.kept = error, []
            return size or 0

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed


@contextlib.contextmanager
def hdf5_file(path: str | Path, mode: str = "w") -> Iterator[tuple[Any, Callable[[], None]]]:
    """(h5py.File, check) of a file to be written, mode w or r+. check: raises OSError if a write failed; the
    end of the `with` block does it too."""
    import h5py

    with _Sink(path, "w+" if mode == "w" else mode) as sink:
        with h5py.File(sink, mode) as file:
            yield file, sink.check
        sink.check()


def lock(path: str | Path, what: str | Path, patience: float = 0.0) -> BaseFileLock:
    """Acquire the lock file `path`, so that only one process writes `what`. Free it with `.release()`; the
    operating system frees it when the process ends, even if killed. patience: seconds to wait for it.

    Raises AtlasError naming `what` when another process (or another lock object of this one) holds it.
    """
    from filelock import FileLock, Timeout

    taken = FileLock(path, timeout=patience, thread_local=False)
    try:
        taken.acquire()
    except Timeout:
        raise AtlasError(
            f"{what}: another process is writing here; wait until it has finished, or stop it"
        ) from None
    return taken


def files_under(folder: str | Path) -> list[Path]:
    """All files in a folder and its sub-folders, sorted. Follows links to folders, except to one that
    contains the link, which would recurse without end."""
    found: list[Path] = []
    inside: dict[str, frozenset[str]] = {str(folder): frozenset()}
    for here, folders, names in os.walk(folder, followlinks=True):
        around = inside.pop(here) | {os.path.realpath(here)}
        folders[:] = [f for f in folders if os.path.realpath(os.path.join(here, f)) not in around]
        inside |= {os.path.join(here, f): around for f in folders}
        found += [path for name in names if (path := Path(here, name)).is_file()]
    return sorted(found)


def sha256(path: str | Path) -> str:
    """Hex digest of a file's contents."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
