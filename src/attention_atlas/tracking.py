"""The only file that knows MLflow: where the store is, one run per stage or sweep job, one parent per
`dvc repro` or sweep.

The store is `mlflow.db` (SQLite) in the repository root unless MLFLOW_TRACKING_URI is set. A run inside
DVC's temporary copies (`dvc exp run --temp`, queued experiments) uses the store of the repository the user
stands in. Nothing of MLflow ever enters a DVC output.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

# One MLflow experiment for everything: a `dvc repro` spans all studies, and runs nest only within one.
EXPERIMENT = "attention-atlas"
PARENT_VARIABLE = "ATLAS_PARENT_RUN"
# MLflow refuses parameter values over 6000 characters and batches over 100 parameters.
MAX_VALUE, MAX_BATCH = 6000, 100


def store_root(root: Path) -> Path:
    """The repository the user stands in, also from DVC's temporary copy of it."""
    parts = root.resolve().parts
    for i in range(len(parts) - 2):
        if parts[i : i + 3] == (".dvc", "tmp", "exps"):
            return Path(*parts[:i])
    return root.resolve()


def tracking_uri(root: Path) -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{store_root(root) / 'mlflow.db'}"


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    # Creating the schema of a fresh SQLite store is not safe against other processes; nor is
    # "look for the parent run, else create it".
    from filelock import FileLock

    lock = store_root(root) / ".work" / "mlflow.lock"
    lock.parent.mkdir(exist_ok=True)
    with FileLock(str(lock)):
        yield


def _client(root: Path) -> Any:
    """A client whose store is ready. Call with the lock held."""
    import logging

    from mlflow import MlflowClient

    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    uri = tracking_uri(root)
    store = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
    if store is not None and not store.exists():
        # MLflow builds its schema step by step: killed in between, it could never open the file again.
        new = store.with_name(f"{store.name}.new")
        new.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{new}").search_experiments()
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
    """(key, title) of the `dvc` process above this one, if DVC runs this stage."""
    if "DVC_STAGE" not in os.environ:
        return None
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
        client = _client(root)
        experiment_id = _experiment_id(client, root)
        found = client.search_runs([experiment_id], f"tags.`atlas.session` = '{key}'", max_results=1)
        if found:
            return str(found[0].info.run_id)
        run = client.create_run(experiment_id, run_name=title, tags={"atlas.session": key})
        # A parent only groups its children: it has no work of its own to finish.
        client.set_terminated(run.info.run_id)
        return str(run.info.run_id)


class Run:
    """What a stage may tell MLflow."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self.run_id = client, run_id

    def params(self, values: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        rows = [Param(_name(k), _short(str(v))) for k, v in values.items()]
        for i in range(0, len(rows), MAX_BATCH):
            self._client.log_batch(self.run_id, params=rows[i : i + MAX_BATCH])

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        import time

        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        # SQLite keeps no NaN: what is undefined is not logged.
        rows = [Metric(_name(k), float(v), now, step) for k, v in values.items() if math.isfinite(float(v))]
        for i in range(0, len(rows), 1000):
            self._client.log_batch(self.run_id, metrics=rows[i : i + 1000])

    def tags(self, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self._client.set_tag(self.run_id, key, _short(value))

    def artifact(self, path: str | Path) -> None:
        self._client.log_artifact(self.run_id, str(path))


def _name(key: str) -> str:
    """MLflow refuses other characters in the name of a metric or parameter (mAP@36, DET+ADJ)."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _short(value: str) -> str:
    if len(value) <= MAX_VALUE:
        return value
    digest = hashlib.sha256(value.encode()).hexdigest()[:16]
    return f"{value[: MAX_VALUE - 40]}... sha256:{digest}"


def _git(root: Path, *words: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True)
    return result.stdout.strip()


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
    """One MLflow run around a stage: parameters, commit, status; nested under its `dvc repro` or sweep."""
    parent = os.environ.get(PARENT_VARIABLE)
    session = None if parent else _session()
    if session:
        parent = open_parent(root, *session)
    with _locked(root):
        client = _client(root)
        experiment_id = _experiment_id(client, root)
        all_tags = {
            "git.commit": _git(root, "rev-parse", "HEAD"),
            "git.dirty": str(bool(_git(root, "status", "--porcelain"))),
            **tags,
        }
        if "DVC_EXP_NAME" in os.environ:
            all_tags["dvc.exp"] = os.environ["DVC_EXP_NAME"]
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        created = client.create_run(experiment_id, run_name=name, tags=all_tags)
    run = Run(client, str(created.info.run_id))
    run.params(flatten(config))
    try:
        yield run
    except BaseException:
        client.set_terminated(run.run_id, status="FAILED")
        raise
    client.set_terminated(run.run_id)


class SweepParent(Callback):
    """Hydra callback: prepares the store and opens the parent run before parallel jobs start."""

    def on_multirun_start(self, config: Any, **kwargs: Any) -> None:
        import time

        from omegaconf import OmegaConf

        task = OmegaConf.select(config, "hydra.job.config_name") or "sweep"
        overrides = OmegaConf.select(config, "hydra.overrides.task") or []
        title = f"sweep {Path(task).name}: {' '.join(overrides)}"[:250]
        key = f"sweep-{os.getpid()}-{time.time_ns()}"
        os.environ[PARENT_VARIABLE] = open_parent(Path.cwd(), key, title)
