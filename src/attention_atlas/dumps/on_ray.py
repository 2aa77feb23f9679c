"""The batches of a dump on a Ray cluster: `capture.engine=ray`.

Ray Data streams them through two pools of actors: readers prepare batches ahead of the models, and each model
has its own actor (and GPU, if the cluster has any). Both pools wait until their results are fetched. An actor
that dies is restarted, and its batches are run again. The process that started the dump writes the
results, so the files are the same as without Ray.
"""

from __future__ import annotations

import logging
import os
import pickle
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attention_atlas.dumps.batches import DumpTask, Found, Passes
from attention_atlas.errors import AtlasError, ConfigError

if TYPE_CHECKING:
    from torch import nn

    from attention_atlas.dumps.dump import DumpSettings

OURS = re.compile(r"attention_atlas\.errors\.\w+: (.+)")
READ_AHEAD = 2  # batches in flight per model


@dataclass
class RayEngine:
    """load: device -> model, called in each model's actor; it must be picklable, and the files it reads must
    exist on every node. actors: number of models (0: one per GPU of the cluster or, without GPUs, one per
    two CPUs). readers: largest number of processes that prepare batches; each takes a CPU. device:
    cpu, or anything else for the GPUs of the cluster."""

    load: Callable[[str], nn.Module]
    actors: int = 0
    readers: int = 1
    device: str = "auto"

    def __call__(
        self,
        task: DumpTask,
        todo: list[list[str]],
        settings: DumpSettings,
        kinds: Mapping[str, tuple[str, str]],
    ) -> Iterator[list[Found]]:
        ray = connected()
        import torch

        has = ray.cluster_resources()
        gpus = 0 if self.device == "cpu" else int(has.get("GPU", 0))
        cpus = int(has.get("CPU", 1))
        count = self.actors or gpus or max(1, cpus // 2)
        readers = max(1, min(self.readers, cpus - count, len(todo)))  # more would keep the models waiting
        # Rounding depends on the number of threads.
        threads = torch.get_num_threads()
        model = (self.load, task_alone(task), settings, dict(kinds), "cuda" if gpus else "cpu", threads)
        data = ray.data.from_items(
            [{"ids": pickle.dumps(ids)} for ids in todo], override_num_blocks=len(todo)
        )
        data = data.map(
            Reader,
            fn_constructor_args=(ray.put(task),),
            compute=ray.data.ActorPoolStrategy(size=readers),
            num_cpus=1,
        )
        data = data.map(
            Model,
            fn_constructor_args=model,
            compute=ray.data.ActorPoolStrategy(
                size=max(1, min(count, len(todo))), max_tasks_in_flight_per_actor=READ_AHEAD
            ),
            num_cpus=1,
            num_gpus=1 if gpus else 0,
        )
        try:
            for row in data.iter_rows():
                found = pickle.loads(row["found"])
                if isinstance(found, AtlasError):
                    raise found
                yield found
        except ray.exceptions.RayError as error:
            raise one_line(error) from None


class Reader:
    """Prepares batches. task: a reference to the prepared task."""

    def __init__(self, task: Any) -> None:
        import ray

        self.task: Any = ray.get(task) if isinstance(task, ray.ObjectRef) else task

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        return {"batch": _sent(lambda: self.task.batch(pickle.loads(row["ids"])))}


class Model:
    """Runs batches through its own model."""

    def __init__(
        self,
        load: Callable[[str], nn.Module],
        task: DumpTask,
        settings: DumpSettings,
        kinds: Mapping[str, tuple[str, str]],
        device: str,
        threads: int,
    ) -> None:
        import torch

        torch.set_num_threads(threads)
        self.passes = Passes(task, load(device), settings, kinds, device)

    def __call__(self, row: dict[str, bytes]) -> dict[str, bytes]:
        batch = pickle.loads(row["batch"])
        return {"found": row["batch"] if isinstance(batch, AtlasError) else _sent(lambda: self.passes(batch))}


def _sent(make: Callable[[], Any]) -> bytes:
    """Pickled: the result of `make`, or its AtlasError, which Ray would wrap and print with a traceback."""
    try:
        return pickle.dumps(make())
    except AtlasError as error:
        return pickle.dumps(error)


def task_alone(task: Any) -> Any:
    """The task without what `prepare` added, which models do not need."""
    import dataclasses

    return dataclasses.replace(task)


def connected() -> Any:
    """Ray, connected to the cluster of RAY_ADDRESS, or to one on this machine."""
    try:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(
            f"capture.engine: ray: {error}; pip install 'attention-atlas[ray]', or capture.engine=local"
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(logging_level="error", log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise AtlasError(f"RAY_ADDRESS: no cluster ({first}); start one with 'ray start'") from None
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # errors are raised
    return ray


def one_line(error: BaseException) -> AtlasError:
    """The AtlasError of an actor, or Ray's error in one line."""
    found = OURS.search(str(error))
    if found:
        return AtlasError(found[1])
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return AtlasError(f"capture.engine: ray: {lines[-1] if lines else type(error).__name__}; see Ray's log")
