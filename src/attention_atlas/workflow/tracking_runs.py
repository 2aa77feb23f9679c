"""The record of a run: a folder `.work/mlflow/<key>` of the repository, kept until MLflow has all of it.

orders.jsonl holds one JSON object per line, {"do": open | params | metrics | tags | input | model | summary |
artifact | close, ...}. The stage that writes it holds a lock on the file, which the operating system frees
when the stage ends: a record that is not locked was kept because MLflow could not be reached, or its stage
was killed. MLflow is not needed here.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

ORDERS = "orders.jsonl"
JOB = "atlas.job"  # tag of a run of a sweep: the folder of its job
MAX_KEPT_FILE = 50 * 2**20  # bytes; a larger artifact is not copied into the record
YOUNG = 60.0  # seconds during which an empty record may belong to a stage that is about to lock it
OLD = 24 * 3600.0  # seconds without a new line after which a record is abandoned, where files have no locks


def store_root(root: Path) -> Path:
    """The repository that the user is in, also from DVC's temporary copy of it."""
    parts = root.resolve().parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    return root.resolve()


def tracking_uri(root: Path) -> str:
    """MLFLOW_TRACKING_URI, or the SQLite file in the repository."""
    # In a URI, '?' would end the path and '%20' be a space.
    path = str(store_root(root) / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{path}"


def without_password(uri: str) -> str:
    return re.sub(r"//[^/@]*@", "//", uri)


def records_folder(root: Path) -> Path:
    return store_root(root) / ".work" / "mlflow"


def new_key() -> str:
    """A name for a run; names sort in the order of creation."""
    return f"{time.time_ns()}-{uuid.uuid4().hex[:8]}"


class Record:
    """The record of a run, while its stage writes it.

    Tracking is optional: if the record cannot be written, `lost` gives the reason and nothing is raised."""

    def __init__(self, root: Path, key: str) -> None:
        self.key, self.folder = key, records_folder(root) / key
        self.lost = ""
        self._file: IO[str] | None = None
        self._number = 0
        self._artifacts: list[tuple[int, Path]] = []
        try:
            self.folder.mkdir(parents=True)
            self._file = (self.folder / ORDERS).open("a", encoding="utf-8")
        except OSError as error:
            self._lose(error)
            return
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX)

    def _lose(self, error: OSError) -> None:
        self.lost = self.lost or f"{self.folder}: {error.strerror or error}"

    def write(self, do: str, **what: Any) -> None:
        if self._file is None or self.lost:
            return
        self._number += 1
        if do == "artifact":
            self._artifacts.append((self._number, Path(what["path"])))
        try:
            # The number names the copy of an artifact.
            print(json.dumps({"do": do, "number": self._number, **what}), file=self._file, flush=True)
        except OSError as error:
            self._lose(error)

    def keep(self) -> None:
        """Copy the artifacts into the record, to be handed over later: another stage may overwrite them."""
        for number, path in self._artifacts:
            copy = artifact_copy(self.folder, number, path)
            with contextlib.suppress(OSError):
                if path.is_file() and path.stat().st_size <= MAX_KEPT_FILE:
                    copy.parent.mkdir(exist_ok=True)
                    shutil.copyfile(path, copy)
        self.release()

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self.release()

    def release(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None


def artifact_copy(folder: Path, number: int, path: Path) -> Path:
    return folder / str(number) / path.name


def kept(root: Path) -> list[Path]:
    """All records, the oldest first, including those that a stage is still writing."""
    folder = records_folder(root)
    return sorted(p for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may hand over the record: no stage writes it and no other process hands it over.
    Locked until the end of the block."""
    try:
        file = (folder / ORDERS).open("r+b")  # NFS locks no file that is open for reading only
    except OSError:
        yield False
        return
    with file:
        wait = 0.0
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            wait = OLD
        try:
            stat = os.stat(folder / ORDERS)
        except OSError:  # removed by another process meanwhile
            yield False
            return
        yield time.time() - stat.st_mtime >= (wait if stat.st_size else max(wait, YOUNG))
