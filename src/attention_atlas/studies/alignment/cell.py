"""One cell of the study: a model under one alignment and seed, trained and evaluated.

Every cell is trained on one thread, so the number of processes does not change the result.
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
MODEL = "model"  # the run folder inside a cell


@dataclass(frozen=True)
class Cell:
    """One alignment (its name in conf/alignment) and seed."""

    alignment: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.alignment}/seed{self.seed}"


def cell_config(cfg: DictConfig, cell: Cell, device: str) -> DictConfig:
    """The configuration of one cell: its alignment and seed, one thread, the study's effort."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(cfg, resolve=False)
    values["alignment"] = None if cell.alignment == NONE else values["alignments"][cell.alignment]
    values["seed"] = cell.seed
    made = OmegaConf.create(values)
    loop, effort = made.train.loop, float(cfg.study.get("effort", 1.0))
    loop.epochs = max(1, round(loop.epochs * effort))
    if loop.get("max_steps"):
        loop.max_steps = max(1, round(loop.max_steps * effort))
    if device == "cpu":
        loop.threads = 1
    return made


def run_cell(values: Mapping[str, Any], cell: Cell, work: Path, device: str) -> tuple[Cell, float]:
    """Train and evaluate one cell in this process; returns (cell, seconds)."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas.models.run_folder import load_run
    from attention_atlas.training.run import train_task

    began = time.monotonic()
    cfg = cell_config(OmegaConf.create(dict(values)), cell, device)
    task = prepared_task(cfg)
    task.seed = cell.seed
    parts = work / "parts" / cell.folder
    training = work / "training" / cell.folder
    shutil.rmtree(parts, ignore_errors=True)
    with _quiet():
        train_task(cfg, task, parts / MODEL, training, device)
        model, _, _ = load_run(parts / MODEL, device)
        evaluator = instantiate(cfg.model.evaluator)
        result = evaluator(model, task, device)
    result.save(parts)
    final = work / "done" / cell.folder
    final.parent.mkdir(parents=True, exist_ok=True)
    os.replace(parts, final)
    shutil.rmtree(training, ignore_errors=True)
    return cell, time.monotonic() - began


# Tasks prepared in a worker process, by data and training configuration: read once for all its cells.
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


def read_history(folder: Path) -> list[dict[str, float]]:
    """history.csv of a run folder, one dict per validation."""
    import csv

    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bars of single cells: bars are silent if stderr is not a terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
