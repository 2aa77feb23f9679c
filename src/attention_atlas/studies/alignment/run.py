"""One run of the study: a model under one alignment and seed, trained and evaluated.

Every run is trained on one thread, so the number of processes does not change the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

NONE = "none"  # instead of an alignment, for a model that has none
MODEL = "model"  # the model's folder inside that of a run


@dataclass(frozen=True)
class TrainingRun:
    """One alignment (its name in conf/alignment) and seed."""

    alignment: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.alignment}/seed{self.seed}"


def config_of(cfg: DictConfig, run: TrainingRun, device: str) -> DictConfig:
    """The configuration of one run: its alignment and seed, one thread."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(cfg, resolve=False)
    values["alignment"] = None if run.alignment == NONE else values["alignments"][run.alignment]
    values["seed"] = run.seed
    made = OmegaConf.create(values)
    if device == "cpu":
        made.train.loop.threads = 1
    return made


def train_run(
    values: Mapping[str, Any], run: TrainingRun, work: Path, device: str
) -> tuple[TrainingRun, float]:
    """Train and evaluate one run in this process; returns (run, seconds)."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.models.run_folder import load_run
    from attention_atlas.training.run import train_task

    began = time.monotonic()
    cfg = config_of(OmegaConf.create(dict(values)), run, device)
    task = prepared_task(cfg)
    task.seed = run.seed
    parts = work / "parts" / run.folder
    training = work / "training" / run.folder
    shutil.rmtree(parts, ignore_errors=True)
    with _quiet():
        train_task(cfg, task, parts / MODEL, training, device)
        model, _, _ = load_run(parts / MODEL, device)
        evaluator = instantiate(cfg.model.evaluator)
        result = evaluator(model, task, device)
    result.save(parts)
    final = work / "done" / run.folder
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(parts, final)
    shutil.rmtree(training, ignore_errors=True)
    return run, time.monotonic() - began


# Tasks prepared in a worker process, by data and training configuration: read once for all its runs.
_PREPARED: dict[str, Any] = {}


def prepared_task(cfg: DictConfig) -> Any:
    """The task of `cfg` with its data read, from memory if this process has prepared it before."""
    from hydra.utils import instantiate

    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.training.run import build_task, run_config

    _, training, _ = run_config(cfg)
    key = json.dumps([training["task"], cfg.data.name, os.getcwd()], sort_keys=True, default=str)
    digest = hashlib.sha256(key.encode()).hexdigest()
    if digest not in _PREPARED:
        task = build_task(cfg)
        corpus, features = instantiate(cfg.data.reader), None
        if training.get("features"):
            # Stays open: the task may read from it at any time.
            features = FeaturesFile(training["features"])
            corpus = with_regions(corpus, features)
        task.prepare(corpus, features)
        _PREPARED.clear()
        _PREPARED[digest] = task
    return _PREPARED[digest]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bars of single runs: bars are silent if stderr is not a terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
