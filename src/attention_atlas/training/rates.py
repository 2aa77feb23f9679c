"""The learning rates of all optimisers of a run, set by `TrainSettings.schedule`."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau

from attention_atlas.training.settings import Schedule


class LearningRates:
    """Sets the rate of each optimiser before it steps.

    updates: number of updates of the run; epoch: updates per epoch; direction: whether a larger ('max') or
    smaller ('min') selection metric is better. Only the schedule `plateau` has state; the others are
    functions of the update number.
    """

    def __init__(
        self,
        schedule: Schedule,
        optimizers: dict[str, torch.optim.Optimizer],
        updates: int,
        epoch: int,
        direction: str,
    ) -> None:
        self.schedule, self.optimizers, self.updates, self.epoch = schedule, optimizers, updates, epoch
        self.base = {name: [g["lr"] for g in o.param_groups] for name, o in optimizers.items()}
        self.plateaus: dict[str, ReduceLROnPlateau] = {}
        if schedule.name == "plateau":
            mode: Literal["min", "max"] = "max" if direction == "max" else "min"
            self.plateaus = {
                # threshold 0: any improvement counts.
                name: ReduceLROnPlateau(o, mode, schedule.factor, schedule.patience, threshold=0.0)
                for name, o in optimizers.items()
            }

    def set(self, name: str, update: int) -> None:
        """Set the rates of the optimiser `name` for update 1..updates."""
        if self.plateaus:
            return  # the optimiser's groups keep the rate set after the last validation
        scale = self.schedule.scale(update, self.updates, self.epoch)
        for group, lr in zip(self.optimizers[name].param_groups, self.base[name]):
            group["lr"] = lr * scale

    def validated(self, value: float) -> None:
        """Record the selection metric of a validation."""
        for plateau in self.plateaus.values():
            plateau.step(value)

    def state_dict(self) -> dict[str, Any]:
        return {name: plateau.state_dict() for name, plateau in self.plateaus.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, plateau in self.plateaus.items():
            plateau.load_state_dict(state[name])
