"""The experiments, runs and parents of a repository in MLflow. DVC outputs contain no MLflow data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from attention_atlas.workflow.tracking_runs import JOB, store_root

# Marks an experiment as one of model training. MLflow 3.17 opens that view once the user has chosen it.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Few and short attempts, because the stage waits for them; failed requests are repeated later. In seconds.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
MAX_ROWS = 50_000  # MLflow's limit for a search
LOCK_WAIT = 60.0  # seconds to wait for another process that creates the store, an experiment or a parent


class Store:
    """MLflow at `uri`, for the repository `root`."""

    def __init__(self, root: Path, uri: str) -> None:
        self.root, self.uri = root, uri
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._parents: dict[tuple[str, str], str] = {}
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

    @property
    def client(self) -> Any:
        if self._client is None:
            with self.locked():
                self._client = _client(self.uri)
        return self._client

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        # Two processes must not create the schema of a fresh SQLite store at the same time, nor the same
        # parent or run: the writer of a killed stage may still send a run while another process hands it
        # over.
        from filelock import FileLock

        lock = store_root(self.root) / ".work" / "mlflow.lock"
        lock.parent.mkdir(exist_ok=True)
        with FileLock(str(lock), timeout=LOCK_WAIT):
            yield

    def experiment(self, name: str) -> str:
        if name not in self._experiments:
            client = self.client
            with self.locked():
                self._experiments[name] = self._experiment(client, name)
        return self._experiments[name]

    def _experiment(self, client: Any, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = client.get_experiment_by_name(name)
        if found is None:
            location = None
            if self.uri.startswith("sqlite:"):
                location = (store_root(self.root) / "mlartifacts" / name).as_uri()
            try:
                return str(client.create_experiment(name, artifact_location=location, tags=KIND))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another machine has just created it
                    raise
                found = client.get_experiment_by_name(name)
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def run(
        self, experiment: str, key: str, name: str, start: int, tags: Mapping[str, str], parent: str = ""
    ) -> str:
        """The id of the run with this key; created, nested in the run `parent`, if there is none."""
        client = self.client
        with self.locked():
            run = self.find(experiment, key)
            if run is None:
                tags = {**tags, **({"mlflow.parentRunId": parent} if parent else {}), "atlas.run": key}
                run = client.create_run(experiment, start_time=start, run_name=name, tags=tags)
        return str(run.info.run_id)

    def find(self, experiment: str, key: str) -> Any:
        """The run with this key, or None."""
        found = self.client.search_runs([experiment], f"tags.`atlas.run` = '{key}'", max_results=1)
        return found[0] if found else None

    def parent(self, experiment: str, key: str, title: str, start: int, tags: Mapping[str, str]) -> str:
        """The id of the parent of a session in an experiment; created if there is none."""
        if (experiment, key) not in self._parents:
            client = self.client
            with self.locked():
                found = client.search_runs([experiment], f"tags.`atlas.session` = '{key}'", max_results=1)
                parent = found[0] if found else None
                if parent is None:
                    own = {k: v for k, v in tags.items() if k.startswith(("mlflow.", "dvc."))}
                    own |= {"atlas.session": key, "mlflow.source.name": title}
                    parent = client.create_run(experiment, start_time=start, run_name=title, tags=own)
                    # It only groups its children, and a killed `dvc` could not end it.
                    client.set_terminated(parent.info.run_id, end_time=start)
            self._parents[experiment, key] = str(parent.info.run_id)
        return self._parents[experiment, key]

    def extend(self, parent: str, end: int, status: str, is_job: bool = False) -> None:
        """The parent lasts until its last child ends, and has failed if one of them has. For a sweep's
        job (`is_job`) only the last run counts, since it may complete an earlier one."""
        with self.locked():
            info = self.client.get_run(parent).info
            status = "FAILED" if "FAILED" in (info.status, status) else "FINISHED"
            if is_job and status == "FAILED" and not self._has_failed_job(info):
                status = "FINISHED"
            self.client.set_terminated(parent, status=status, end_time=max(end, info.end_time or 0))

    def _has_failed_job(self, parent: Any) -> bool:
        children = self.client.search_runs(
            [parent.experiment_id],
            f"tags.`mlflow.parentRunId` = '{parent.run_id}'",
            max_results=MAX_ROWS,
            order_by=["attributes.start_time ASC"],
        )
        last = {run.data.tags.get(JOB, run.info.run_id): run.info.status for run in children}
        return "FAILED" in last.values()


def _client(uri: str) -> Any:
    """A client whose store is ready. Call with the lock held."""
    import logging

    from mlflow import MlflowClient

    for noisy in ("alembic", "mlflow", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)  # we report errors in one line
    if not uri.startswith("sqlite:///"):
        return MlflowClient(tracking_uri=uri)
    quoted = Path(uri.removeprefix("sqlite:///"))
    store = Path(unquote(str(quoted)))
    # For a store in "a%20b", whose URI has "a%2520b", MLflow 3.17 also creates a folder of that name.
    stray = [folder for folder in quoted.parents if not folder.exists()]
    try:
        if not store.exists():
            # MLflow builds its schema step by step: if killed in between, it could never open the file again.
            (new := store.with_name(f"{store.name}.new")).unlink(missing_ok=True)
            MlflowClient(tracking_uri=f"{uri}.new").search_experiments()
            os.replace(new, store)
        return MlflowClient(tracking_uri=uri)
    finally:
        with contextlib.suppress(OSError):
            for folder in stray:
                folder.rmdir()
