"""Sends the record of a run (workflow/tracking_runs.py) to MLflow.

Sending can be repeated: a run is found again by its key.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from attention_atlas.workflow.tracking_runs import JOB, ORDERS, artifact_copy
from attention_atlas.workflow.tracking_store import Store

# MLflow refuses batches over these numbers, and longer names of a data set.
MAX_PARAMS, MAX_METRICS, MAX_NAME = 100, 1000, 500


class Delivery:
    """Sends the lines of one record, and continues after the last one that MLflow took."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder = store, folder
        self.closed = False
        self._offset = 0
        self._id = self._experiment = self._parent = ""
        self._refused: list[str] = []

    def advance(self) -> None:
        """Send the complete lines written since the last call. Raises MLflow's errors."""
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
        """Send; skip and note what MLflow will never accept (an invalid value, a missing file)."""
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
            tags = {"path": path, "mlflow.model.isExternal": "true"}  # DVC owns its files
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
            self.store.extend(self._parent, time, status, is_job=JOB in self._tags)
        self.closed = True


def _order(line: bytes) -> dict[str, Any] | None:
    """The content of a line; None if a full disk or a kill has truncated it."""
    with contextlib.suppress(ValueError):
        order = json.loads(line)
        return order if isinstance(order, dict) else None
    return None


def _batches(rows: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
