"""Optimizers, their groups of parameters, and the running average of the weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.training.settings import TrainSettings
from attention_atlas.training.sharding import apart


def optimizers_of(task: Any, model: nn.Module, settings: TrainSettings) -> dict[str, torch.optim.Optimizer]:
    """`task.optimizers(model, settings)` if it has one, else Adam over all parameters, named 'all'."""
    if hasattr(task, "optimizers"):
        return task.optimizers(model, settings)
    return {"all": adam(parameter_groups(model, settings), settings)}


def parameter_groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """The trainable parameters, grouped by the longest prefix of their name in `settings.lr_scales`.

    Raises ConfigError for a prefix that no parameter has.
    """
    groups: dict[str, list[Tensor]] = {"": [], **{prefix: [] for prefix in settings.lr_scales}}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups[max((p for p in groups if name.startswith(p)), key=len)].append(parameter)
    for prefix in settings.lr_scales:
        if not groups[prefix]:
            raise ConfigError(f"lr_scales: no parameter's name begins with '{prefix}'")
    scales = {"": 1.0, **settings.lr_scales}
    return [
        {"params": part, "lr": settings.lr * scales[prefix]}
        for prefix, ps in groups.items()
        for part in (apart(model, ps) if settings.shard else [ps])
        if part
    ]


def adam(parameters: Any, settings: TrainSettings) -> torch.optim.Optimizer:
    """Adam (AdamW if weight_decay > 0) with the settings' constants."""
    kind = torch.optim.AdamW if settings.weight_decay else torch.optim.Adam
    return kind(
        parameters,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,  # one kernel: the optimiser is a twentieth of a small model's step
    )


def average(model: nn.Module, decay: float) -> torch.optim.swa_utils.AveragedModel | None:
    """The moving average of the weights, starting from the initial ones; its buffers are the model's."""
    if not decay:
        return None
    average = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    average.update_parameters(model)  # the first call copies; each update then moves the average
    return average
