"""What conf/train/<name>.yaml may hold, and the learning-rate schedules."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from attention_atlas.errors import ConfigError, did_you_mean

SCHEDULES = ("noam", "constant", "linear")


@dataclass
class Schedule:
    """Learning rate over optimiser steps, counted from 1.

    noam: lr · factor · dim^-0.5 · min(step^-0.5, step · warmup^-1.5) (Vaswani et al. 2017, eq. 3); lr is 1
    there. constant: lr, after a linear rise over `warmup` steps. linear: the same rise, then down to 0 at the
    last step.
    """

    name: str = "constant"
    warmup: int = 0
    factor: float = 1.0
    dim: int = 512

    def scale(self, step: int, last: int) -> float:
        """What the base learning rate is multiplied with at `step` of 1..last."""
        if self.name == "noam":
            warmup = max(self.warmup, 1)
            return self.factor * self.dim**-0.5 * min(step**-0.5, step * warmup**-1.5)
        rise = min(step / self.warmup, 1.0) if self.warmup else 1.0
        if self.name == "constant" or step <= self.warmup:
            return rise
        return max(0.0, (last - step + 1) / max(last - self.warmup, 1))


@dataclass
class TrainSettings:
    """How the loop runs. `clip_norm` bounds the gradient's norm, `clip_value` each of its elements.

    `max_steps` ends the run early (0: never), `validate_every` counts epochs, `precision`: no, bf16 or fp16.
    `lr_scales` multiplies the rate of the parameters whose names begin with a prefix, e.g. {encoder.: 0.1}.
    `threads` fixes the CPU threads (0: as many as there are), since sums may differ by their number.
    """

    epochs: int = 10
    max_steps: int = 0
    validate_every: int = 1
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    weight_decay: float = 0.0
    lr_scales: dict[str, float] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float = 0.0
    clip_value: float = 0.0
    accumulate: int = 1
    precision: str = "no"
    threads: int = 0
    checkpoint_seconds: float = 60.0

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "conf/train") -> TrainSettings:
        """Check names and build. Raises ConfigError naming the unknown or wrong value."""
        given = {str(k): v for k, v in values.items() if not str(k).startswith("_")}
        _known(given, cls, where)
        schedule = dict(given.pop("schedule", {}) or {})
        _known(schedule, Schedule, f"{where}: schedule")
        given["lr_scales"] = dict(given.get("lr_scales") or {})
        if "betas" in given:
            given["betas"] = tuple(given["betas"])
        settings = cls(**given, schedule=Schedule(**schedule))
        if settings.schedule.name not in SCHEDULES:
            name = settings.schedule.name
            raise ConfigError(f"{where}: schedule.name: '{name}' is unknown{did_you_mean(name, SCHEDULES)}")
        for name in ("epochs", "validate_every", "accumulate"):
            if getattr(settings, name) < 1:
                raise ConfigError(f"{where}: {name}: must be at least 1, not {getattr(settings, name)}")
        return settings


def _known(given: Mapping[str, Any], kind: type, where: str) -> None:
    names = [f.name for f in dataclasses.fields(kind)]
    for name in given:
        if name not in names:
            raise ConfigError(f"{where}: {name}: no such setting{did_you_mean(name, names)}")
