"""One training in several processes that `torchrun` or `accelerate launch` has started.

Every process runs the same command. Rank 0 is the stage: it has the MLflow run and the work folder's lock,
and writes the outputs. The others only train (training/processes.py).
"""

from __future__ import annotations

import os
from typing import Any

from attention_atlas.errors import ConfigError

LAUNCHED = "TORCHELASTIC_RUN_ID"  # set by torchrun and by accelerate, which uses it


def launched() -> int:
    """Number of processes that a launcher has started for this command; 0 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if LAUNCHED in os.environ else 0


def follows() -> bool:
    """Whether this process is not the first of those that a launcher has started."""
    return launched() > 1 and int(os.environ["RANK"]) > 0


def check_launched(name: str, in_sweep: bool) -> None:
    """Raise ConfigError for a command that several processes cannot run together."""
    if launched() < 2:
        return
    if in_sweep:
        raise ConfigError(
            f"{launched()} processes were launched, each with a sweep; launch one training without -m, or "
            "let each job of the sweep start its own processes with gpus=N"
        )
    if name != "train":
        raise ConfigError(
            f"{launched()} processes were launched, but pipeline.{name} runs in one; only pipeline.train "
            "runs in several"
        )


class Silent:
    """The Run of a process that logs nothing (workflow/tracking.py)."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **more: None
