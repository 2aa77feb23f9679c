"""One MLflow run per stage or sweep job, one parent per `dvc repro`, `make reproduce` or sweep.

The store is `mlflow.db` (SQLite) in the repository root unless MLFLOW_TRACKING_URI is set. A run inside
DVC's temporary copies (`dvc exp run --temp`, queued experiments) uses the store of the repository that the
user is in.

A stage writes what it logs to a record (workflow/tracking_runs.py). A separate process
(workflow/tracking_writer.py) sends it to MLflow while the stage works. Tracking never makes a stage fail:
data that MLflow did not accept stay in the record, one line says so, and the next stage sends them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hydra.experimental.callback import Callback

from attention_atlas.workflow.tracking_origin import SESSION_VARIABLE, session, source_tags
from attention_atlas.workflow.tracking_runs import (
    Record,
    new_key,
    records_folder,
    tracking_uri,
    without_password,
)

PARENT_VARIABLE = "ATLAS_PARENT_RUN"  # key of the run that the runs of this process are nested in
SOCKET_VARIABLE = "ATLAS_TRACKER"  # path of the socket of tracking_writer.py's `listen`
# Experiments of MLflow: one per study, and one for the stages that make data.
EXPERIMENT, DATA = "attention-atlas", "data"
MAX_VALUE = 6000  # maximum characters of a value in MLflow
# Longest wait in seconds for the writer at the end of a stage. The writer's own attempts end earlier, with a
# reason.
WAIT = 300.0


class _Writer:
    """The MLflow process and the pipe to it. One for all runs of this process."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.pid = os.getpid()
        self.open: list[Run] = []
        self.ended: list[Run] = []  # but not yet recorded
        self.failed = ""
        pipes = _connection()
        if pipes is None:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "attention_atlas.workflow.tracking_writer"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,  # Ctrl-C is for the stage, which then closes its run
            )
            assert self.process.stdin is not None and self.process.stdout is not None
            pipes = self.process.stdin, self.process.stdout
        self.lines, self.answers = pipes

    def begin(self, root: Path, **what: Any) -> Run:
        run = Run(Record(root, new_key()), root)
        run.record.write("open", key=run.key, **what)
        self.open.append(run)
        self._send(begin=str(run.record.folder), root=str(root), uri=tracking_uri(root))
        return run

    def end(self, run: Run, status: str) -> None:
        """Close a run; after the last one, wait until MLflow has all of them, or has failed."""
        run.record.write("close", status=status, time=_now())
        self.open.remove(run)
        self.ended.append(run)
        if self.open:
            return
        kept = self._recorded()
        reasons = []
        for ended in self.ended:
            if ended.record.lost:
                reasons.append(f"it cannot be kept either: {ended.record.lost}")
                ended.record.release()
            elif (reason := kept.get(ended.key, self.failed)) or self.failed:
                reasons.append(reason or self.failed)
                ended.record.keep()
            else:
                ended.record.remove()
        if reasons:
            self.stop()  # the next run starts a new process, without connections to a store that is gone
            _say(run.root, reasons[-1], lost=bool(run.record.lost))
        self.ended = []

    def _recorded(self) -> dict[str, str]:
        """{key of a run that MLflow has not taken: reason}."""
        self._send(end=True)
        line = "" if self.failed else self._answer()
        try:
            answer = json.loads(line)
            return {str(key): str(reason) for key, reason in answer["kept"].items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            self.failed = self.failed or "its process ended"
            return {}

    def _answer(self) -> str:
        with selectors.DefaultSelector() as waiting:
            waiting.register(self.answers, selectors.EVENT_READ)
            if not waiting.select(WAIT):
                self.failed = f"no answer in {WAIT:.0f} seconds"
                return ""
        try:
            return self.answers.readline()
        except (OSError, ValueError):
            return ""

    def _send(self, **message: Any) -> None:
        try:
            print(json.dumps(message), file=self.lines, flush=True)
        except (OSError, ValueError):
            self.failed = "its process ended"

    def stop(self) -> None:
        """End the process, which no longer answers."""
        global _writer
        _writer = None
        for pipe in (self.lines, self.answers):
            with contextlib.suppress(OSError, ValueError):
                pipe.close()
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def is_dead(self) -> bool:
        return self.pid != os.getpid() or bool(
            self.failed or (self.process is not None and self.process.poll() is not None)
        )


def _say(root: Path, reason: str, lost: bool) -> None:
    what = f"MLflow at {without_password(tracking_uri(root))} did not record this run ({reason})"
    if not lost:
        folder = os.path.relpath(records_folder(root))
        what += f"; it is kept in {folder}: the next stage hands it over, or `attention-atlas track`"
    print(f"note: {what}", file=sys.stderr)


def _now() -> int:
    return int(time.time() * 1000)


def _connection() -> tuple[IO[str], IO[str]] | None:
    """Connect to the process that workflow/parallel.py started for all its stages; None if there is none."""
    path = os.environ.get(SOCKET_VARIABLE)
    if not path:
        return None
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
        with connection:  # the files keep it open
            lines, answers = connection.makefile("w"), connection.makefile("r")
        print(json.dumps([str(Path.cwd()), dict(os.environ)]), file=lines, flush=True)
    except OSError:
        connection.close()
        return None
    return lines, answers


_writer: _Writer | None = None


def start_writer() -> _Writer:
    """The writer of this process; started at the first call, so that it is ready when needed."""
    global _writer
    if _writer is None or _writer.is_dead():
        _writer = _Writer()
    return _writer


class Run:
    """Logs a stage to MLflow. `key` identifies the run before MLflow knows it."""

    def __init__(self, record: Record, root: Path) -> None:
        self.record, self.root = record, root

    @property
    def key(self) -> str:
        return self.record.key

    def params(self, values: Mapping[str, Any]) -> None:
        self.record.write("params", values={_name(k): _short(str(v)) for k, v in values.items()})

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self.record.write("metrics", values=_finite(values), step=step, time=_now())

    def summary(self, study: str, values: Mapping[str, float]) -> None:
        """Headline numbers of a study, shown at the parent of its runs."""
        experiment = f"{EXPERIMENT}/{study}"
        self.record.write("summary", experiment=experiment, values=_finite(values), time=_now())

    def tags(self, values: Mapping[str, str]) -> None:
        self.record.write("tags", values={k: _short(v) for k, v in values.items()})

    def input(self, path: str | Path, digest: str) -> None:
        """A file or folder that the run reads: MLflow's column Dataset."""
        self.record.write("input", path=str(path), digest=digest)

    def model(self, name: str, values: Mapping[str, Any], path: str | Path) -> None:
        """The model that the run trained, in `path`, which DVC owns: MLflow's column Model."""
        params = {_name(k): _short(str(v)) for k, v in values.items()}
        self.record.write("model", name=_name(name), params=params, path=str(path))

    def artifact(self, path: str | Path) -> None:
        self.record.write("artifact", path=str(Path(path).resolve()))


def _finite(values: Mapping[str, float]) -> dict[str, float]:
    """SQLite stores no NaN: undefined values are not logged."""
    return {_name(k): float(v) for k, v in values.items() if math.isfinite(float(v))}


def _name(key: str) -> str:
    """Replace characters that MLflow refuses in the name of a metric or parameter (mAP@36, DET+ADJ)."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:250]


def _short(value: str) -> str:
    if len(value) <= MAX_VALUE:
        return value
    digest = hashlib.sha256(value.encode("utf-8", "replace")).hexdigest()[:16]
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
def stage_run(
    root: Path, name: str, config: Mapping[str, Any], tags: Mapping[str, str], seconds: float = 0.0
) -> Iterator[Run]:
    """One MLflow run around a stage: parameters, source, status; nested under its `dvc repro` or sweep.
    It goes to the experiment of the tag `study`, else to that of the data.

    seconds: how long ago the work began. Never raises because of MLflow.
    """
    writer = start_writer()
    run = writer.begin(
        root,
        experiment=f"{EXPERIMENT}/{tags.get('study', DATA)}",
        name=name[:250],
        time=_now() - int(seconds * 1000),
        tags={**source_tags(root), **tags},
        parent=os.environ.get(PARENT_VARIABLE) or None,
        session=session(),
    )
    run.params(flatten(config))
    try:
        yield run
    except BaseException:
        writer.end(run, "FAILED")
        raise
    writer.end(run, "FINISHED")


class SweepParent(Callback):
    """Hydra callback: names the parent of all jobs of a sweep before they start."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        from omegaconf import OmegaConf

        task = OmegaConf.select(config, "hydra.job.config_name") or "sweep"
        overrides = OmegaConf.select(config, "hydra.overrides.task") or []
        title = f"sweep {Path(task).name}: {' '.join(overrides)}"[:250]
        # The same parent when the sweep is resumed.
        key = hashlib.sha256(f"{config.hydra.sweep.dir} {title}".encode()).hexdigest()[:16]
        os.environ[SESSION_VARIABLE] = f"sweep-{key} {title}"
