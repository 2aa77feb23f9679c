"""Atomic writes, so that a killed run never leaves a partial file; JSON, locks, file lists, digests."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; renamed to `path` on success, removed on failure. What a killed
    process of this machine left is removed."""
    final = Path(path)
    final.parent.mkdir(parents=True, exist_ok=True)
    # Keep the suffix: writers such as matplotlib derive the format from it.
    beginning, end = f".{final.stem}.{platform.node()}-", f".part{final.suffix}"
    for left in final.parent.glob(f"{glob.escape(beginning)}*{glob.escape(end)}"):
        owner = left.name[len(beginning) : -len(end)]
        if owner.isdecimal() and not _is_alive(int(owner)):
            left.unlink(missing_ok=True)
    temporary = final.with_name(f"{beginning}{os.getpid()}{end}")
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
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
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise AtlasError(f"{path}: not JSON ({error}); {remedy}") from None
    if schema and (not isinstance(value, dict) or value.get("schema") != schema):
        raise AtlasError(f"{path}: schema: is not {schema}; {remedy}")
    return value


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n")


def read_jsonl(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value). Raises AtlasError with file and line."""
    path = Path(path)
    if not path.exists():
        raise AtlasError(
            f"{path}: no such file; run the stage that writes it (dvc repro) or correct the path"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield number, json.loads(line.decode("utf-8"))
            except ValueError as error:  # not UTF-8, or not JSON
                raise AtlasError(f"{path}: line {number}: not JSON ({error}); write the file again") from None


def lock(path: str | Path, what: str | Path) -> BaseFileLock:
    """Acquire the lock file `path`, so that only one process writes `what`. Free it with `.release()`; the
    operating system frees it when the process ends, even if killed.

    Raises AtlasError naming `what` when another process (or another lock object of this one) holds it.
    """
    from filelock import FileLock, Timeout

    taken = FileLock(path, blocking=False, thread_local=False)
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
