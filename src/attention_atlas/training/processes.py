"""Several processes that train one model together, each on its share of the batches of an update.

On a CPU two processes of one thread take 0.38 to 0.78 of the time of two threads in one process: at the size
of the mini models an operation ends before the second thread wakes up. The stage starts the processes itself.

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
from torch import Tensor, nn

from attention_atlas.errors import AtlasError
from attention_atlas.workflow.parallel import CORES_VARIABLE

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"


def process_count(accumulate: int, device: str, workers: int = 0) -> int:
    """Number of processes that share an update of `accumulate` batches: the largest divisor of it for which
    there are cores (`workers`, 0: all, or the job's share when jobs run in parallel); always 1 on a device
    other than a CPU."""
    if device != "cpu":
        return 1
    cores = workers or int(os.environ.get(CORES_VARIABLE, "0")) or os.cpu_count() or 1
    return max(n for n in range(1, accumulate + 1) if accumulate % n == 0 and (n <= cores or n == 1))


Together = Callable[[Callable[..., Any], dict[str, Any], dict[str, Any]], Any]


@contextlib.contextmanager
def processes(count: int) -> Iterator[Together]:
    """Start `count` - 1 processes, which import torch in the background, and yield
    `together(job, arguments, own)`: `job(**arguments, **own, join=...)` here and
    `job(**arguments, join=...)` in each of the others.

    Every process calls `join()` once, when it is ready to train; after that they form one group. `job` and
    `arguments` must be picklable. `together` returns what `job` returns here, and raises the AtlasError of a
    process that fails.
    """
    import multiprocessing

    if count == 1:
        yield lambda job, arguments, own: job(**arguments, **own, join=lambda: None)
        return
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        where = f"{folder}/rendezvous"
        pipes, others = [], []
        for rank in range(1, count):
            here, there = context.Pipe()
            others.append(context.Process(target=_other, args=(rank, count, where, there), daemon=True))
            pipes.append(here)

        def together(job: Callable[..., Any], arguments: dict[str, Any], own: dict[str, Any]) -> Any:
            try:
                for pipe in pipes:
                    pipe.send((job, arguments))
            except BrokenPipeError:
                _raise_reason(pipes, others, patience=10.0)
                raise
            try:
                result = job(**arguments, **own, join=lambda: _join(0, count, where, pipes, others))
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


def _other(rank: int, count: int, where: str, pipe: Any) -> None:
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
        _enter(rank, count, where)

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


def _join(rank: int, count: int, where: str, pipes: Sequence[Any], others: Sequence[Any]) -> None:
    for pipe, process in zip(pipes, others):
        while not pipe.poll(0.2):
            if not process.is_alive():
                _raise_reason(pipes, others)
        if pipe.poll() and isinstance(found := pipe.recv(), AtlasError):
            raise found
    _enter(rank, count, where)


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


def _enter(rank: int, count: int, where: str) -> None:
    import torch.distributed

    values = (rank, count, rank, count)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values)})
    os.environ.setdefault("GLOO_SOCKET_IFNAME", LOOPBACK)
    torch.distributed.init_process_group("gloo", init_method=f"file://{where}", rank=rank, world_size=count)


def _leave() -> None:
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    for name in VARIABLES:
        os.environ.pop(name, None)


def accelerator_on(device: str, precision: str) -> Any:
    """An Accelerator on exactly `device`. Under `accelerate launch` each process keeps its own device."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    threads = torch.get_num_threads()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        os.environ["ACCELERATE_TORCH_DEVICE"] = device
        if device.startswith("cuda"):
            torch.cuda.set_device(device)
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or device == "cpu":
        # Accelerate keeps its device and group for the whole process; a second run may need another one.
        AcceleratorState._reset_state(True)
        PartialState._reset_state()
    with _own_threads():
        accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    torch.set_num_threads(threads)
    return accelerator


@contextlib.contextmanager
def _own_threads() -> Iterator[None]:
    """Accelerate chooses a number of threads, with a warning, unless this variable is set."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or "1"
    yield
    if before is None:
        del os.environ["OMP_NUM_THREADS"]


def same_start(model: nn.Module) -> None:
    """Copy the first process's parameters and buffers to all processes."""
    import torch.distributed

    for tensor in model.state_dict().values():
        torch.distributed.broadcast(tensor, 0)


def summed_loss(value: float, accelerator: Any) -> float:
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device)))


def average_gradients(parameters: Sequence[Tensor], accelerator: Any) -> None:
    """Average `.grad` over the processes; a parameter that no process used keeps no gradient."""
    has = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32)
    flat = torch.cat(
        [
            has.to(accelerator.device),
            *((torch.zeros_like(p) if p.grad is None else p.grad).flatten().float() for p in parameters),
        ]
    )
    flat = accelerator.reduce(flat, "mean")
    used, at = flat[: len(parameters)].tolist(), len(parameters)
    for parameter, share in zip(parameters, used):
        part = flat[at : at + parameter.numel()].view_as(parameter)
        at += parameter.numel()
        if share:
            if parameter.grad is None:
                parameter.grad = torch.empty_like(parameter)
            # Keep the gradient's memory layout: fused optimisers pair elements by their place in memory.
            parameter.grad.copy_(part)
