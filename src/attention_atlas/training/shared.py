"""Accelerate's device and precision, and what the processes of one training share: gradients, losses,
decisions and files (training/processes.py starts the processes)."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import atomic_path
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.sharding import by_kind, clip_norm, is_sharded, whole

# Accelerate's own ways to distribute a model; the loop uses none of them (see sharding.py).
SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM")


def accelerator_on(device: str, precision: str) -> Any:
    """An Accelerator on exactly `device`. Under `accelerate launch` each process keeps its own device."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    for kind in SHARDED:
        if os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() in ("true", "1"):
            raise ConfigError(
                f"accelerate: use_{kind.lower()}: is not supported; choose distributed_type MULTI_GPU in "
                "accelerate's configuration, and train.loop.shard=true to split the model over the GPUs"
            )
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


def read_checkpoint(path: Path, device: torch.device, sharded: bool = False) -> dict[str, Any]:
    """Raises AtlasError for a file that cannot be read, for example after a power failure. sharded: the
    whole checkpoint may not fit on the device."""
    where = torch.device("cpu") if sharded else device
    try:
        saved: dict[str, Any] = torch.load(path, map_location=where, weights_only=True, mmap=sharded)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise AtlasError(
            f"{path}: cannot be read ({reason}); delete it to begin this training again"
        ) from None
    return saved


def write_checkpoint(path: Path, state: dict[str, Any], accelerator: Any, sharded: bool = False) -> None:
    """The first process writes; if the model is sharded, all processes call this."""
    first = accelerator.is_main_process
    state = whole(state, keep=first) if sharded else state
    if first:
        with atomic_path(path) as temporary, temporary.open("wb") as file:  # reports a full disk
            torch.save(state, file)


def write_weights(path: Path, model: nn.Module, accelerator: Any) -> None:
    """The first process writes; if the model is sharded, all processes call this."""
    from safetensors.torch import save_file

    first = accelerator.is_main_process
    weights = whole(model.state_dict(), keep=first)
    if first:
        # clone: safetensors refuses tensors that share memory (tied embeddings).
        weights = {k: v.detach().cpu().contiguous().clone() for k, v in weights.items()}
        with atomic_path(path) as temporary:
            save_file(weights, temporary)


def same_batch(batch: int, accelerator: Any, checkpoint: Path) -> None:
    """Raise AtlasError unless all processes begin at the same batch. Only the first one writes the
    checkpoint: if the others do not see it, or see an old copy, they would begin elsewhere."""
    if accelerator.num_processes == 1:
        return
    begins = accelerator.gather(torch.tensor([batch], device=accelerator.device)).tolist()
    if len(set(begins)) > 1:
        raise AtlasError(
            f"{checkpoint}: the processes would begin at different batches {begins}; put the repository on a "
            "file system that all machines share"
        )


def of_the_first(value: float, accelerator: Any) -> float:
    """The first process's value, for a decision that must be the same in all processes."""
    from accelerate.utils import broadcast

    sent: Any = broadcast(torch.tensor(value, dtype=torch.float64, device=accelerator.device))
    return float(sent)


def clip(parameters: Sequence[Tensor], settings: TrainSettings, accelerator: Any) -> None:
    """Limit the gradients' norm and elements as `settings` says."""
    kinds = by_kind(parameters)
    if settings.clip_norm and any(is_sharded(kind[0]) for kind in kinds):
        clip_norm(parameters, settings.clip_norm)
    elif settings.clip_norm:
        accelerator.clip_grad_norm_(parameters, settings.clip_norm)
    for kind in kinds if settings.clip_value else ():
        accelerator.clip_grad_value_(kind, settings.clip_value)


def summed_loss(value: float, accelerator: Any) -> float:
    return float(accelerator.reduce(torch.tensor(value, dtype=torch.float64, device=accelerator.device)))


def average_gradients(parameters: Sequence[Tensor], accelerator: Any) -> None:
    """Average `.grad` over the processes; a parameter that no process used keeps no gradient. FSDP has
    already averaged those of sharded parameters."""
    parameters = [p for p in parameters if not is_sharded(p)]
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
