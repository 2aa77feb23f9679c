"""The only file that uses MLflow: sends the record of a run (workflow/tracking_runs.py) to it.

Sending can be repeated: a run is found again by its key. Nothing of MLflow ever enters a DVC output.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from attention_atlas.workflow.tracking_runs import ORDERS, artifact_copy, store_root

# MLflow refuses batches over these numbers, and longer names of a data set.
MAX_PARAMS, MAX_METRICS, MAX_NAME = 100, 1000, 500
# Marks an experiment as one of model training. MLflow 3.17 opens that view once the user has chosen it.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Few and short attempts: the stage waits for them. What fails is sent again later. Seconds.
PATIENCE = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
}
LOCK_WAIT = 60.0  # for another process that creates the store, an experiment or a parent


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
        # Creating the schema of a fresh SQLite store is not safe against other processes; nor is
        # "look for it, else create it": of a parent, and of a run, which the writer of a killed stage may
        # still send while another process hands it over.
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
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # by another machine, just now
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

    def extend(self, parent: str, end: int, status: str) -> None:
        """The parent lasts until its last child ends, and has failed if one of them has."""
        with self.locked():
            info = self.client.get_run(parent).info
            status = "FAILED" if "FAILED" in (info.status, status) else "FINISHED"
            self.client.set_terminated(parent, status=status, end_time=max(end, info.end_time or 0))


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


class Delivery:
    """Sends the lines of one record, and continues after the last one that MLflow took."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.closed = False
        self._offset = 0
        self._id = self._experiment = self._parent = ""
        self._refused: list[str] = []

    def advance(self) -> None:
        """Send the complete lines that were written since. Raises what MLflow raises."""
        with (self.folder / ORDERS).open("rb") as file:
            file.seek(self._offset)
            lines = [line for line in file if line.endswith(b"\n")]
        for is_metrics, group in groupby(lines, lambda line: line.startswith(b'{"do": "metrics"')):
            sent = list(group)
            orders = [order for line in sent if (order := _order(line))]
            if is_metrics:
                self._try(self._do_metrics, orders=orders)
                self._offset += sum(map(len, sent))
                continue
            for line in sent:
                order = _order(line)
                if order:
                    do = order.pop("do")
                    if do == "open" or self._id:
                        self._try(getattr(self, f"_do_{do}"), **order)
                self._offset += len(line)

    def finish(self) -> None:
        """Send the rest; a run that its stage did not close has failed."""
        self.advance()
        if self._id and not self.closed:
            end = (self.folder / ORDERS).stat().st_mtime
            self._do_close(0, "FAILED", int(end * 1000))

    def _try(self, send: Any, **what: Any) -> None:
        """What MLflow will never take (an invalid value, a file that is gone) is left out and noted."""
        from mlflow.exceptions import MlflowException

        try:
            send(**what)
        except FileNotFoundError as error:
            self._refused.append(str(error))
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE" or not self._id:
                raise
            self._refused.append(str(error).splitlines()[0])

    def _do_open(
        self,
        number: int,
        key: str,
        experiment: str,
        name: str,
        time: int,
        tags: dict[str, str],
        parent: str | None,
        session: list[str] | None,
    ) -> None:
        self._experiment = self.store.experiment(experiment)
        if session:
            key_of_session, title = session
            self._parent = self.store.parent(self._experiment, key_of_session, title, time, tags)
            self._session = key_of_session, title
        above = self.store.find(self._experiment, parent) if parent else None
        above_id = str(above.info.run_id) if above else self._parent
        self._id = self.store.run(self._experiment, key, name, time, tags, above_id)
        self._time, self._tags = time, tags

    def _do_params(self, number: int, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for rows in _batches([Param(k, v) for k, v in values.items()], MAX_PARAMS):
            self.store.client.log_batch(self._id, params=rows)

    def _do_metrics(self, orders: Iterable[Mapping[str, Any]]) -> None:
        self._log_metrics(self._id, orders)

    def _log_metrics(self, run: str, orders: Iterable[Mapping[str, Any]]) -> None:
        from mlflow.entities import Metric

        rows = [Metric(k, v, o["time"], o.get("step", 0)) for o in orders for k, v in o["values"].items()]
        for some in _batches(rows, MAX_METRICS) if run else ():
            self.store.client.log_batch(run, metrics=some)

    def _do_summary(self, number: int, experiment: str, values: Mapping[str, float], time: int) -> None:
        if self._parent:
            parent = self.store.parent(
                self.store.experiment(experiment), *self._session, self._time, self._tags
            )
            self._log_metrics(parent, [{"values": values, "time": time}])

    def _do_tags(self, number: int, values: Mapping[str, str]) -> None:
        for key, value in values.items():
            self.store.client.set_tag(self._id, key, value)

    def _do_input(self, number: int, path: str, digest: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"uri": path})
        data = Dataset(path[-MAX_NAME:], digest, "local", source)
        context = [InputTag("mlflow.data.context", "input")]
        self.store.client.log_inputs(self._id, [DatasetInput(data, context)])

    def _do_model(self, number: int, name: str, params: dict[str, str], path: str) -> None:
        from mlflow.entities import LoggedModelOutput

        client = self.store.client
        here = [self._experiment]
        with self.store.locked():
            if client.search_logged_models(here, f"source_run_id = '{self._id}'", max_results=1):
                return
            tags = {"path": path, "mlflow.model.isExternal": "true"}  # its files are those of DVC
            model = client.create_logged_model(
                self._experiment, name, source_run_id=self._id, tags=tags, params=params
            )
        client.finalize_logged_model(model.model_id, "READY")
        client.log_outputs(self._id, [LoggedModelOutput(model.model_id, 0)])

    def _do_artifact(self, number: int, path: str) -> None:
        copy = artifact_copy(self.folder, number, Path(path))
        self.store.client.log_artifact(self._id, str(copy if copy.exists() else path))

    def _do_close(self, number: int, status: str, time: int) -> None:
        if self._refused:
            self.store.client.set_tag(self._id, "atlas.refused", "\n".join(self._refused)[:5000])
        self.store.client.set_terminated(self._id, status=status, end_time=time)
        if self._parent:
            self.store.extend(self._parent, time, status)
        self.closed = True


def _order(line: bytes) -> dict[str, Any] | None:
    """None: a line that a full disk or a kill has cut."""
    with contextlib.suppress(ValueError):
        order = json.loads(line)
        return order if isinstance(order, dict) else None
    return None


def _batches(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
