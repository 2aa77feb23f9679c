"""One MLflow run per stage or sweep job, one parent per `dvc repro` or sweep.

The store is `mlflow.db` (SQLite) in the repository root unless MLFLOW_TRACKING_URI is set. A run inside
DVC's temporary copies (`dvc exp run --temp`, queued experiments) uses the store of the repository that the
user is in. MLflow itself runs in a separate process (workflow/tracking_store.py): this file only writes to
it, and waits for it at the end.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hydra.experimental.callback import Callback

from attention_atlas.errors import AtlasError
from attention_atlas.workflow.tracking_store import SOCKET_VARIABLE, open_parent, tracking_uri

PARENT_VARIABLE = "ATLAS_PARENT_RUN"
MAX_VALUE = 6000  # maximum characters of a value in MLflow


class _Writer:
    """The MLflow process and the pipe to it. One for all runs of this process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        pipes = _connection()
        if pipes is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "attention_atlas.workflow.tracking_store"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the stage, which then closes its run
            )
            assert self.process.stdin is not None and self.process.stdout is not None
            pipes = self.process.stdin, self.process.stdout
        self.lines, self.answers = pipes
        self.pid = os.getpid()
        self.runs: list[Run] = []  # all runs that were started
        self.open: list[Run] = []

    def begin(self) -> Run:
        for earlier in self.runs[-1:]:
            _ = earlier.run_id  # answers come in the order of the runs
        run = Run(self, len(self.runs))
        self.runs.append(run)
        self.open.append(run)
        return run

    def end(self, run: Run, status: str) -> None:
        """Close a run; after the last one, wait until everything is written."""
        self.open.remove(run)
        run._send("close", status=status)
        _ = run.run_id
        if not self.open:
            self.answer()

    def send(self, do: str, **what: Any) -> None:
        try:
            print(json.dumps({"do": do, **what}), file=self.lines, flush=True)
        except (BrokenPipeError, ConnectionResetError):
            self.answer()  # the reason for its exit

    def answer(self) -> str:
        try:
            line = self.answers.readline()
        except ConnectionResetError:
            line = ""
        reply = json.loads(line) if line else {"error": "its process ended"}
        if "error" in reply:
            global _writer
            _writer = None  # the next run starts a new process
            raise AtlasError(
                f"{tracking_uri(Path.cwd())}: MLflow cannot write there ({reply['error']}); correct "
                "MLFLOW_TRACKING_URI, or move the file away"
            )
        return str(reply["ok"])

    def ended(self) -> bool:
        return self.pid != os.getpid() or (self.process is not None and self.process.poll() is not None)


def _connection() -> tuple[IO[str], IO[str]] | None:
    """To the process that workflow/parallel.py started for all its stages; None if there is none."""
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return None
    with connection:  # the files keep it open
        lines, answers = connection.makefile("w"), connection.makefile("r")
    print(json.dumps([str(Path.cwd()), dict(os.environ)]), file=lines, flush=True)
    return lines, answers


_writer: _Writer | None = None


def start_writer() -> _Writer:
    """The writer of this process; started at the first call, so that it is ready when needed."""
    global _writer
    if _writer is None or _writer.ended():
        _writer = _Writer()
    return _writer


class Run:
    """What a stage can log to MLflow."""

    def __init__(self, writer: _Writer, number: int) -> None:
        self._writer, self._number = writer, number
        self._id: str | None = None

    @property
    def run_id(self) -> str:
        """MLflow's id; waits until the run exists."""
        if self._id is None:
            self._id = self._writer.answer()
        return self._id

    def params(self, values: Mapping[str, Any]) -> None:
        self._send("params", values={_name(k): _short(str(v)) for k, v in values.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        # SQLite stores no NaN: undefined values are not logged.
        finite = {_name(k): float(v) for k, v in values.items() if math.isfinite(float(v))}
        self._send("metrics", values=finite, step=step, time=int(time.time() * 1000))

    def tags(self, values: Mapping[str, str]) -> None:
        self._send("tags", values={k: _short(v) for k, v in values.items()})

    def artifact(self, path: str | Path) -> None:
        self._send("artifact", path=str(Path(path).resolve()))

    def _send(self, do: str, **what: Any) -> None:
        self._writer.send(do, run=self._number, **what)


def _name(key: str) -> str:
    """MLflow refuses other characters in the name of a metric or parameter (mAP@36, DET+ADJ)."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _short(value: str) -> str:
    if len(value) <= MAX_VALUE:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    return f"{value[: MAX_VALUE - 40]}... sha256:{digest}"


def flatten(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts to {'a.b.c': value}."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


@contextlib.contextmanager
def stage_run(root: Path, name: str, config: Mapping[str, Any], tags: Mapping[str, str]) -> Iterator[Run]:
    """One MLflow run around a stage: parameters, commit, status; nested under its `dvc repro` or sweep.

    Raises AtlasError if the store cannot be written.
    """
    writer = start_writer()
    run = writer.begin()
    parent = os.environ.get(PARENT_VARIABLE) or None
    where = {"root": str(root), "uri": tracking_uri(root)}
    run._send("open", **where, name=name, tags=dict(tags), parent=parent)
    run.params(flatten(config))
    try:
        yield run
    except BaseException:
        # The stage's own error matters more than one of the store.
        with contextlib.suppress(AtlasError):
            writer.end(run, "FAILED")
        raise
    writer.end(run, "FINISHED")


class SweepParent(Callback):
    """Hydra callback: prepares the store and opens the parent run before parallel jobs start."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        from omegaconf import OmegaConf

        task = OmegaConf.select(config, "hydra.job.config_name") or "sweep"
        overrides = OmegaConf.select(config, "hydra.overrides.task") or []
        title = f"sweep {Path(task).name}: {' '.join(overrides)}"[:250]
        # The same parent when the sweep is resumed.
        key = hashlib.sha256(f"{config.hydra.sweep.dir} {title}".encode()).hexdigest()[:16]
        os.environ[PARENT_VARIABLE] = open_parent(Path.cwd(), f"sweep-{key}", title)
