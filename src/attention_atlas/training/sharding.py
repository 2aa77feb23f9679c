"""Fully sharded data parallelism (FSDP, Zhao et al. 2023) for models that do not fit into every process.

`train.loop.shard` splits the layers of a transformers model over the processes: each keeps its share of a
layer's weights, gradients and optimiser state, and a layer is whole only while it computes. Everything
outside the layers (word embeddings, output matrix, projector) stays whole in every process, so a task may
call any method of the model, not only `forward`.

FSDP averages the gradients of a layer after each backward pass; `shared.average_gradients` those of the rest.
Checkpoints and saved weights hold whole tensors, so a run resumes with another number of processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError


def is_sharded(tensor: Any) -> bool:
    """Whether this process holds only a share of the tensor (a DTensor)."""
    return getattr(tensor, "placements", None) is not None


def by_kind(tensors: Sequence[Tensor]) -> list[list[Tensor]]:
    """Separate whole and sharded tensors: torch's fused operations do not accept both at once."""
    kinds = ([t for t in tensors if not is_sharded(t)], [t for t in tensors if is_sharded(t)])
    return [kind for kind in kinds if kind]


def layers_of(model: nn.Module) -> list[nn.Module]:
    """The modules that transformers keeps in one piece (`_no_split_modules`), whether already split or not.

    Raises ConfigError for a model without them.
    """
    kinds = {kind for module in model.modules() for kind in getattr(module, "_no_split_modules", None) or ()}
    layers = [m for m in model.modules() if type(m).__name__.removeprefix("FSDP") in kinds]
    if not layers:
        raise ConfigError(
            f"train: loop: shard: {type(model).__name__} has no layers of transformers to split; turn it off"
        )
    return layers


def apart(model: nn.Module, parameters: Sequence[Tensor]) -> list[list[Tensor]]:
    """Separate the parameters of layers from all others: `by_kind`, but also in a single process, whose
    optimiser must be able to read a checkpoint of several processes."""
    inside = {id(p) for layer in layers_of(model) for p in layer.parameters()}
    parts = ([p for p in parameters if id(p) not in inside], [p for p in parameters if id(p) in inside])
    return [part for part in parts if part]


def same_start(model: nn.Module) -> None:
    """Copy the first process's parameters and buffers to all processes; sharded ones are equal already."""
    import torch.distributed

    for tensor in model.state_dict().values():
        if not is_sharded(tensor):
            torch.distributed.broadcast(tensor, 0)


def shard_layers(model: nn.Module, accelerator: Any) -> None:
    """Split the layers over the processes, which all call this and start from the first one's weights."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in reversed(layers_of(model)):  # inner layers first
        layer.to(accelerator.device)
        same_start(layer)
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)


def whole(tree: Any, keep: bool = True) -> Any:
    """The tree with each sharded tensor gathered on the CPU; all processes call it, and those that do not
    `keep` the result get empty tensors."""
    if is_sharded(tree):
        full = tree.detach().full_tensor()
        return full.cpu() if keep else torch.empty(0)
    if isinstance(tree, Mapping):
        return {name: whole(value, keep) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value, keep) for value in tree)
    return tree


def split(saved: dict[str, Any], model: nn.Module, optimizers: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint of whole tensors, split as the model and its optimisers are."""
    now = model.state_dict()
    weights = {name: _like(value, now[name]) for name, value in saved["model"].items()}
    states = {}
    for name, optimizer in optimizers.items():
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        state = {
            number: {
                key: _like(value, parameters[number]) if getattr(value, "ndim", 0) else value
                for key, value in values.items()
            }
            for number, values in saved["optimizers"][name]["state"].items()
        }
        states[name] = saved["optimizers"][name] | {"state": state}
    return saved | {"model": weights, "optimizers": states}


def _like(value: Tensor, other: Tensor) -> Tensor:
    from torch.distributed.tensor import distribute_tensor

    if not is_sharded(other):
        return value
    mesh: Any = other
    return distribute_tensor(value.to(other.device), mesh.device_mesh, mesh.placements)


def same_trained(parameters: Sequence[Tensor], before: list[bool] | None) -> list[bool]:
    """Which of the sharded parameters are trained. Raises ConfigError if the list differs from `before`, the
    list of the last update: FSDP decides once, in the first forward pass, which parameters get gradients."""
    now = [p.requires_grad for p in parameters if is_sharded(p)]
    if before is not None and now != before:
        raise ConfigError(
            "train: loop: shard: layers were frozen or unfrozen during the training, which sharding does not "
            "support; freeze the same ones throughout (for train=vlm_tuning, task.projector_steps: 0)"
        )
    return now


def clip_norm(parameters: Sequence[Tensor], limit: float) -> None:
    """torch.nn.utils.clip_grad_norm_ over whole and sharded parameters together."""
    kinds = by_kind(parameters)
    norms = []
    for kind in kinds:
        norm: Any = torch.nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None])
        norms.append(norm.full_tensor() if is_sharded(norm) else norm)
    total = torch.linalg.vector_norm(torch.stack(norms))
    for kind in kinds:
        torch.nn.utils.clip_grads_with_norm_(kind, limit, total)
