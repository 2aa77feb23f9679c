"""Several processes that train one model together, each on its share of the batches of an update.

On a CPU two processes of one thread take 0.38 to 0.78 of the time of two threads in one process: at the size
of the mini models an operation ends before the second thread wakes up. On GPUs each process uses one GPU.
The stage starts the processes on its own machine, unless `torchrun` or `accelerate launch` has started them,
on one or several machines.

Not for models with batch normalisation: each process would keep statistics of its own batches.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.workflow.parallel import CORES_VARIABLE
from attention_atlas.workflow.ranks import follows, launched

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def process_count(accumulate: int, device: str, workers: int = 0, gpus: int = 1) -> int:
    """Number of processes that share an update of `accumulate` batches.

    On a CPU the largest divisor of it for which there are cores (`workers`, 0: all, or the job's share when
    jobs run in parallel); on GPUs `gpus` (0: all of this machine); under a launcher as many as it started.
    Raises ConfigError unless the last two divide `accumulate`: the result would depend on their number.
    """
    if count := launched():
        return _divides(count, accumulate, f"{count} processes were launched")
    if device != "cpu" and gpus == 1:
        return 1
    if device.startswith("cuda"):
        found = torch.cuda.device_count()
        if gpus > found:
            raise ConfigError(f"gpus: {gpus}: this machine has {found}; give 0 for all")
        count = gpus or found
        if count > 1 and device != "cuda:0":
            raise ConfigError(f"gpus: {count}: device.train is {device}, a single GPU; set it to cuda")
        return _divides(count, accumulate, f"gpus: {count}")
    if gpus > 1:
        raise ConfigError(f"gpus: {gpus}: the device is {device}; set device.train to cuda")
    if device != "cpu":
        return 1
    cores = workers or int(os.environ.get(CORES_VARIABLE, "0")) or os.cpu_count() or 1
    return max(n for n in range(1, accumulate + 1) if accumulate % n == 0 and (n <= cores or n == 1))


def _divides(count: int, accumulate: int, what: str) -> int:
    if accumulate % count:
        raise ConfigError(
            f"{what}, but an update has {accumulate} batches to share; set train.loop.accumulate to a "
            f"multiple of {count}, and divide train.task.batch_size by as much to keep the size of an update"
        )
    return count


Together = Callable[[Callable[..., Any], dict[str, Any], dict[str, Any]], Any]


@contextlib.contextmanager
def processes(count: int, device: str = "cpu") -> Iterator[Together]:
    """Start `count` - 1 processes, which import torch in the background, and yield
    `together(job, arguments, own)`: `job(**arguments, **own, join=...)` here and
    `job(**arguments, join=...)` in each of the others. Under a launcher all run already and each calls this.

    Every process calls `join()` once, when it is ready to train; after that they form one group. `job` and
    `arguments` must be picklable. `together` returns what `job` returns here, and raises the AtlasError of a
    process that fails.
    """
    import multiprocessing

    if launched() > 1:
        yield _launched_together(device)
        return
    if count == 1:
        yield lambda job, arguments, own: job(**arguments, **own, join=lambda: None)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/rendezvous"
        pipes, others = [], []
        for rank in range(1, count):
            here, there = context.Pipe()
            others.append(
                context.Process(target=_other, args=(rank, count, where, device, there), daemon=True)
            )
            pipes.append(here)

        def together(job: Callable[..., Any], arguments: dict[str, Any], own: dict[str, Any]) -> Any:
            try:
                for pipe in pipes:
                    pipe.send((job, arguments))
            except BrokenPipeError:
                _raise_reason(pipes, others, patience=10.0)
                raise
            try:
                result = job(**arguments, **own, join=lambda: _join(count, where, device, pipes, others))
            except RuntimeError:
                # One failing process breaks the group: report its reason to the user.
                _raise_reason(pipes, others, patience=10.0)
                raise
            for process in others:
                process.join(60.0)
            return result

        try:
            for process in others:
                process.start()
            yield together
        finally:
            for process in others:
                process.kill()
                process.join()
            _leave()


def together(count: int, job: Callable[..., Any], arguments: dict[str, Any], own: dict[str, Any]) -> Any:
    """`processes` for a single job."""
    with processes(count) as run:
        return run(job, arguments, own)


def _launched_together(device: str) -> Together:
    """`together` for a process of torchrun or accelerate launch, which ends all if one fails."""
    import torch.distributed

    def join() -> None:
        if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
        torch.distributed.init_process_group(_backend(device))

    def together(job: Callable[..., Any], arguments: dict[str, Any], own: dict[str, Any]) -> Any:
        if follows():
            os.environ["TQDM_DISABLE"] = "1"
        result = job(**arguments, **own, join=join)
        torch.distributed.barrier()  # the first removes the work folder, which the others read
        torch.distributed.destroy_process_group()
        return result

    return together


def _other(rank: int, count: int, where: str, device: str, pipe: Any) -> None:
    """The main function of an additional process."""
    import multiprocessing

    from tqdm import tqdm

    os.environ["TQDM_DISABLE"] = "1"  # one bar is enough
    tqdm.set_lock(threading.RLock())  # tqdm's shared lock would remain if this one is killed
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave_with_parent() -> None:  # a killed process cannot tell the others to stop
        parent.join()
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()

    def join() -> None:
        pipe.send("ready")
        _enter(rank, count, where, device)

    try:
        job, arguments = pipe.recv()
        job(**arguments, join=join)
        pipe.send("done")
    except AtlasError as error:
        pipe.send(error)
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        if "gloo" not in str(error).lower():  # otherwise another process failed and reports why
            raise
    _leave()


def _join(count: int, where: str, device: str, pipes: Sequence[Any], others: Sequence[Any]) -> None:
    for pipe, process in zip(pipes, others):
        while not pipe.poll(0.2):
            if not process.is_alive():
                _raise_reason(pipes, others)
        try:
            found = pipe.recv() if pipe.poll() else None
        except (EOFError, OSError):  # it died
            process.join(10.0)
            _raise_reason(pipes, others)
            raise
        if isinstance(found, AtlasError):
            raise found
    _enter(0, count, where, device)


def _raise_reason(pipes: Sequence[Any], others: Sequence[Any], patience: float = 0.0) -> None:
    """Raise the error that an additional process reports, or that it has died."""
    for pipe, process in zip(pipes, others):
        process.join(patience)
        with contextlib.suppress(EOFError, OSError):
            while pipe.poll():
                if isinstance(found := pipe.recv(), AtlasError):
                    raise found
        if process.exitcode:
            raise AtlasError(
                f"training: a process ended with code {process.exitcode}; start again, it resumes from the "
                "last checkpoint (workers=1 trains in one process)"
            ) from None


def _backend(device: str) -> str:
    return "nccl" if device.startswith("cuda") else "gloo"


def _enter(rank: int, count: int, where: str, device: str) -> None:
    import torch.distributed

    values = (rank, count, rank, count)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values)})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    torch.distributed.init_process_group(
        _backend(device), init_method=f"file://{where}", rank=rank, world_size=count
    )


def _leave() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in VARIABLES:
        os.environ.pop(name, None)
