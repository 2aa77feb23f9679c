"""The only file that uses MLflow. It runs in its own process next to a stage, because importing MLflow and
opening its store takes longer (2 to 3 s) than many stages; workflow/tracking.py communicates with it.

It reads one JSON object per line: {"do": open | params | metrics | tags | artifact | close, "run": number,
...}, and answers "open" with the run's id and the last "close" with "done", or with an error. If its input
ends without a "close", the stage was killed: runs that are still open are marked FAILED.

The lines come from standard input, or from a socket (`listen`): workflow/parallel.py starts one process for
all its stages, which imports MLflow once and forks for each of them.

Nothing of MLflow ever enters a DVC output.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import unquote

SESSION_VARIABLE = "ATLAS_SESSION"  # "key title" of the parent that several `dvc repro` share
SOCKET_VARIABLE = "ATLAS_TRACKER"  # path of the socket of `listen`
# One MLflow experiment for everything: a `dvc repro` spans all studies, and runs nest only within one.
EXPERIMENT = "attention-atlas"
# MLflow refuses batches over these numbers.
MAX_PARAMS, MAX_METRICS = 100, 1000


def store_root(root: Path) -> Path:
    """The repository that the user is in, also from DVC's temporary copy of it."""
    parts = root.resolve().parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    return root.resolve()


def tracking_uri(root: Path) -> str:
    given = os.environ.get("MLFLOW_TRACKING_URI")
    # In a URI, '?' would end the path and '%20' be a space.
    path = str(store_root(root) / "mlflow.db").replace("%", "%25").replace("?", "%3F")
    return given or f"sqlite:///{path}"


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    # Creating the schema of a fresh SQLite store is not safe against other processes; nor is
    # "look for the parent run, else create it".
    from filelock import FileLock

    lock = store_root(root) / ".work" / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(str(lock)):
        yield


def _client(uri: str) -> Any:
    """A client whose store is ready. Call with the lock held."""
    import logging

    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    store = Path(unquote(uri.removeprefix("sqlite:///"))) if uri.startswith("sqlite:///") else None
    if store is not None and not store.exists():
        # MLflow builds its schema step by step: if killed in between, it could never open the file again.
        new = store.with_name(f"{store.name}.new")
        new.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"{uri}.new").search_experiments()
        os.replace(new, store)
    return MlflowClient(tracking_uri=uri)


def _experiment_id(client: Any, root: Path) -> str:
    name = EXPERIMENT
    existing = client.get_experiment_by_name(name)
    if existing is not None:
        return str(existing.experiment_id)
    location = None
    if client.tracking_uri.startswith("sqlite:"):
        location = (store_root(root) / "mlartifacts" / name).as_uri()
    return str(client.create_experiment(name, artifact_location=location))


def _session() -> tuple[str, str] | None:
    """(key, title) of the `dvc` process above this one, or of the run that it belongs to, if DVC runs this
    stage."""
    if "DVC_STAGE" not in os.environ:
        return None
    key, _, title = os.environ.get(SESSION_VARIABLE, "").partition(" ")
    if key and title:
        return key, title
    import psutil

    for process in psutil.Process().parents():
        with contextlib.suppress(psutil.Error):
            command = process.cmdline()
            if any(Path(word).name in ("dvc", "dvc.exe") for word in command[:3]):
                words = [w for w in command if not w.startswith("-")]
                title = " ".join(["dvc", *words[words.index(next(w for w in words if "dvc" in w)) + 1 :]])
                return f"{process.pid}-{process.create_time():.2f}", title
    return None


def open_parent(root: Path, key: str, title: str) -> str:
    """The id of the parent run with this key; created at once if there is none."""
    with _locked(root):
        client = _client(tracking_uri(root))
        experiment_id = _experiment_id(client, root)
        found = client.search_runs([experiment_id], f"tags.`atlas.session` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run = client.create_run(experiment_id, run_name=title, tags={"atlas.session": key})
        # A parent only groups its children: it has no work of its own to finish.
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


def _git(root: Path, *words: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    return result.stdout.strip()


class Store:
    """The runs of one stage process, by number."""

    def __init__(self) -> None:
        self.client: Any = None  # of the newest run's store
        self.runs: dict[int, str] = {}

    def open(self, run: int, root: str, uri: str, name: str, tags: dict[str, str], parent: str | None) -> str:
        """Create a run, nested under `parent`, else under its `dvc repro`. Returns its id."""
        folder = Path(root)
        session = None if parent else _session()
        if session:
            parent = open_parent(folder, *session)
        with _locked(folder):
            if self.client is None or self.client.tracking_uri != uri:
                self.client = _client(uri)
            experiment_id = _experiment_id(self.client, folder)
            all_tags = {
                "git.commit": _git(folder, "rev-parse", "HEAD"),
                "git.dirty": str(bool(_git(folder, "status", "--porcelain"))),
                **tags,
            }
            if "DVC_EXP_NAME" in os.environ:
                all_tags["dvc.exp"] = os.environ["DVC_EXP_NAME"]
            if parent:
                all_tags["mlflow.parentRunId"] = parent
            created = self.client.create_run(experiment_id, run_name=name, tags=all_tags)
        self.runs[run] = str(created.info.run_id)
        return self.runs[run]

    def params(self, run: int, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        rows = [Param(k, v) for k, v in values.items()]
        for i in range(0, len(rows), MAX_PARAMS):
            self.client.log_batch(self.runs[run], params=rows[i : i + MAX_PARAMS])

    def metrics(self, run: int, values: Mapping[str, float], step: int, time: int) -> None:
        from mlflow.entities import Metric

        rows = [Metric(k, v, time, step) for k, v in values.items()]
        for i in range(0, len(rows), MAX_METRICS):
            self.client.log_batch(self.runs[run], metrics=rows[i : i + MAX_METRICS])

    def tags(self, run: int, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self.client.set_tag(self.runs[run], key, value)

    def artifact(self, run: int, path: str) -> None:
        self.client.log_artifact(self.runs[run], path)

    def close(self, run: int, status: str) -> None:
        self.client.set_terminated(self.runs.pop(run), status=status)


def serve(lines: TextIO, answers: TextIO) -> None:
    """Execute the lines in order until they end."""
    store = Store()
    try:
        for line in lines:
            order = json.loads(line)
            what = order.pop("do")
            result = getattr(store, what)(**order)
            if what == "open" or (what == "close" and not store.runs):
                print(json.dumps({"ok": result or "done"}), file=answers, flush=True)
    except Exception as error:
        first = next(iter(str(error).splitlines()), "") or type(error).__name__
        print(json.dumps({"error": first}), file=answers, flush=True)
    finally:
        for run in list(store.runs):
            with contextlib.suppress(Exception):
                store.close(run, "FAILED")


def listen(path: str) -> None:
    """`serve` in a fork for each connection to the socket `path`, until standard input ends. The first line
    of a connection is its working directory and environment as JSON."""
    import selectors
    import signal
    import socket

    with socket.socket(socket.AF_UNIX) as server, selectors.DefaultSelector() as waiting:
        server.bind(path)
        server.listen(64)  # before the import: early stages wait in the queue
        import mlflow.tracking  # noqa: F401

        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
        waiting.register(server, selectors.EVENT_READ)
        waiting.register(sys.stdin, selectors.EVENT_READ)
        while all(key.fileobj is server for key, _ in waiting.select()):
            connection, _ = server.accept()
            if os.fork():
                connection.close()
                continue
            try:
                server.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                with connection.makefile("r") as lines, connection.makefile("w") as answers:
                    folder, environment = json.loads(lines.readline())
                    os.chdir(folder)
                    os.environ.clear()
                    os.environ.update(environment)
                    serve(lines, answers)
            finally:
                os._exit(0)


if __name__ == "__main__":
    if sys.argv[1:]:
        listen(sys.argv[1])
    else:
        # The import takes most of the time: start before the first line arrives.
        import mlflow.tracking  # noqa: F401

        serve(sys.stdin, sys.stdout)
