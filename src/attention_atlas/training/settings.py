"""The settings of conf/train/<name>.yaml, and the learning-rate schedules."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from attention_atlas.errors import ConfigError, did_you_mean, first_line

SCHEDULES = ("noam", "constant", "linear", "steps", "plateau")
UNITS = ("update", "epoch")


@dataclass
class Schedule:
    """Learning rate over optimiser steps, counted from 1.

    noam: lr · factor · dim^-0.5 · min(step^-0.5, step · warmup^-1.5) (Vaswani et al. 2017, eq. 3); lr is 1
    there. constant: lr, after a linear rise over `warmup` steps. linear: the same rise, then down to 0 at the
    last step. steps: the same rise, then times `factor` at each of `milestones` and after every `every`
    units, but not again once the rate is at most `least` of lr. `unit` sets whether these two count updates
    or epochs. plateau: lr, times `factor` whenever the selected metric has not improved for more than
    `patience` validations (torch.optim.lr_scheduler.ReduceLROnPlateau).

    warmup_from: the share of lr at which the rise begins. If it is 0, the first step already takes 1/warmup.
    """

    name: str = "constant"
    warmup: int = 0
    factor: float = 1.0
    dim: int = 512
    warmup_from: float = 0.0
    milestones: tuple[int, ...] = ()
    every: int = 0
    unit: str = "update"
    least: float = 0.0
    patience: int = 0

    def scale(self, step: int, last: int, epoch: int = 1) -> float:
        """Factor of the base learning rate at `step` of 1..last. epoch: steps per epoch."""
        if self.name == "noam":
            warmup = max(self.warmup, 1)
            return self.factor * self.dim**-0.5 * min(step**-0.5, step * warmup**-1.5)
        rise = min(step / self.warmup, 1.0) if self.warmup else 1.0
        if self.warmup_from and step <= self.warmup:
            rise = self.warmup_from + (1 - self.warmup_from) * (step - 1) / self.warmup
        if self.name == "steps":
            return rise * self.factor ** self._reductions(step - 1, epoch)
        if self.name == "constant" or step <= self.warmup:
            return rise
        return max(0.0, (last - step + 1) / max(last - self.warmup, 1))

    def _reductions(self, done: int, epoch: int) -> int:
        """How many times the rate has been reduced after `done` steps."""
        unit = epoch if self.unit == "epoch" else 1
        count = sum(done >= milestone * unit for milestone in self.milestones)
        count += done // (self.every * unit) if self.every else 0
        if self.least:
            count = min(count, math.ceil(math.log(self.least) / math.log(self.factor)))
        return count

    def check(self, where: str) -> None:
        """Raise ConfigError for a value that the schedule does not allow."""
        for name, known in (("name", SCHEDULES), ("unit", UNITS)):
            value = getattr(self, name)
            if value not in known:
                raise ConfigError(f"{where}: {name}: '{value}' is unknown{did_you_mean(value, known)}")
        if self.name in ("steps", "plateau") and not 0 < self.factor < 1:
            raise ConfigError(
                f"{where}: factor: {self.name} needs a number between 0 and 1, not {self.factor}"
            )
        if self.name == "steps" and not self.milestones and not self.every:
            raise ConfigError(f"{where}: milestones: steps needs a list of them, or 'every'")
        if self.name == "plateau" and (self.warmup or self.milestones or self.every):
            raise ConfigError(f"{where}: plateau has no warmup, milestones or every; remove them")


@dataclass
class TrainSettings:
    """Settings of the loop. `clip_norm` limits the gradient's norm and `clip_value` each of its elements, for
    parameters whose names begin with `clip_prefix` (default: all).

    `max_steps` ends the run early (0: never), `precision`: no, bf16 or fp16. Validation runs after
    every `validate_every` epochs, within an epoch after every `validate_steps` batches (0: never), and at the
    end.
    `lr_scales` multiplies the rate of the parameters whose names begin with a prefix, e.g. {encoder.: 0.1}.
    `threads` fixes the number of CPU threads (0: all), since sums may depend on it.
    `average` is the decay of an exponential moving average of the weights (0: none), which is then validated
    and kept instead of the weights themselves.
    `shard` splits the layers over the processes (training/sharding.py) instead of repeating them in each.
    """

    epochs: int = 10
    max_steps: int = 0
    validate_every: int = 1
    validate_steps: int = 0
    lr: float = 1.0
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-9
    weight_decay: float = 0.0
    lr_scales: dict[str, float] = field(default_factory=dict)
    schedule: Schedule = field(default_factory=Schedule)
    clip_norm: float = 0.0
    clip_value: float = 0.0
    clip_prefix: str = ""
    accumulate: int = 1
    precision: str = "no"
    threads: int = 0
    average: float = 0.0
    shard: bool = False
    checkpoint_seconds: float = 60.0

    @classmethod
    def read(cls, values: Mapping[str, Any], where: str = "train") -> TrainSettings:
        """Build from a section of YAML. Raises ConfigError naming an unknown setting or a wrong value."""
        from omegaconf import OmegaConf
        from omegaconf.errors import ConfigKeyError, ValidationError

        given = {str(k): v for k, v in values.items() if not str(k).startswith("_")}
        try:
            settings: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(cls), given))
        except (ConfigKeyError, ValidationError) as error:
            key = ": ".join([where, *str(error.full_key).split(".")])
            if isinstance(error, ValidationError):
                raise ConfigError(f"{key}: {first_line(error)}; correct the value") from None
            names = [f.name for f in dataclasses.fields(error.object_type or cls)]
            raise ConfigError(f"{key}: no such setting{did_you_mean(str(error.key), names)}") from None
        settings.betas = tuple(settings.betas)
        settings.schedule.check(f"{where}: schedule")
        if not 0 <= settings.average < 1:
            raise ConfigError(f"{where}: average: must be at least 0 and below 1, not {settings.average}")
        if settings.shard and settings.average:
            raise ConfigError(f"{where}: average: does not work with shard; set one of them to its default")
        if settings.shard and settings.precision == "fp16":
            raise ConfigError(f"{where}: precision: fp16 does not work with shard; use bf16")
        for name in ("epochs", "validate_every", "accumulate"):
            if getattr(settings, name) < 1:
                raise ConfigError(f"{where}: {name}: must be at least 1, not {getattr(settings, name)}")
        return cast(TrainSettings, settings)
