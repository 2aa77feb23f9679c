"""Training and evaluating every cell of one model on one data set: alignments times seeds.

A finished cell is a folder renamed into the work folder, so that a killed run goes on with the next one.
Every cell is trained on one thread, wherever it runs: the number of processes changes no result.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.alignment_study.panel import ABOUT
from attention_atlas.alignment_study.result import CellResult
from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.files import write_json
from attention_atlas.progress import progress
from attention_atlas.sweeps import uses_alignment

if TYPE_CHECKING:
    from omegaconf import DictConfig

NONE = "none"  # in place of an alignment, for a model that takes none
MODEL = "model"  # the run folder inside a cell


@dataclass(frozen=True)
class Cell:
    """One alignment (its name in conf/alignment) and seed."""

    alignment: str
    seed: int

    @property
    def folder(self) -> str:
        return f"{self.alignment}/seed{self.seed}"


def cells_path(model: str, data: str) -> str:
    """Folder of all cells of a model on a data set."""
    return f"data/cells/{model}_{data}"


OnCell = Callable[[Cell, float, Mapping[str, float], list[dict[str, float]]], None]


def plan(cfg: DictConfig) -> tuple[list[Cell], str]:
    """The cells that the experiment asks of `cfg.model`, and a line on what is passed over ("" if nothing).

    Raises ConfigError for a model that cannot be evaluated, an unknown alignment or no seed.
    """
    name = cfg.model.name
    if cfg.model.get("evaluator") is None:
        raise ConfigError(
            f"conf/model/{name}.yaml: evaluator: missing; only models of the alignment study have one"
        )
    wanted = list(cfg.experiment.alignments or cfg.alignments)
    for alignment in wanted:
        if alignment not in cfg.alignments:
            raise ConfigError(
                f"conf/experiment: alignments: '{alignment}' is not in conf/alignments"
                f"{did_you_mean(alignment, list(cfg.alignments))}"
            )
    counts = cfg.experiment.seeds
    seeds = [int(cfg.seed) + k for k in range(int(counts.get(name, counts.default)))]
    if not seeds or not wanted:
        raise ConfigError(f"conf/experiment: no seeds or alignments for model {name}; give at least one")
    if not uses_alignment(cfg.model):
        return [Cell(NONE, seed) for seed in seeds], (
            f"model {name} takes no alignment: trained once per seed, not {len(wanted)} times"
        )
    return [Cell(alignment, seed) for seed in seeds for alignment in wanted], ""


def cell_config(cfg: DictConfig, cell: Cell, device: str) -> DictConfig:
    """The configuration of one cell: its alignment and seed, one thread, the experiment's effort."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(cfg, resolve=False)
    values["alignment"] = None if cell.alignment == NONE else values["alignments"][cell.alignment]
    values["seed"] = cell.seed
    made = OmegaConf.create(values)
    loop, effort = made.train.loop, float(cfg.experiment.get("effort", 1.0))
    loop.epochs = max(1, round(loop.epochs * effort))
    if loop.get("max_steps"):
        loop.max_steps = max(1, round(loop.max_steps * effort))
    if device == "cpu":
        loop.threads = 1
    return made


def run_cells(
    cfg: DictConfig,
    cells: Sequence[Cell],
    work: Path,
    out: Path,
    device: str = "cpu",
    processes: int = 1,
    on_cell: OnCell | None = None,
) -> None:
    """Train and evaluate all cells, then compare the functions, and move everything to `out`.

    `on_cell(cell, seconds, scores, history)` is called in this process when a cell is done.
    """
    from joblib import Parallel, delayed, parallel_config
    from omegaconf import OmegaConf

    from attention_atlas.alignment_study.same import compare_functions

    done = work / "done"
    left = [cell for cell in cells if not (done / cell.folder).is_dir()]
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    count = max(1, min(processes, len(left)))
    setting = _one_thread() if count == 1 else parallel_config("loky", inner_max_num_threads=1)
    with setting, Parallel(n_jobs=count, return_as="generator_unordered") as pool:
        jobs = pool(delayed(run_cell)(values, cell, work, device) for cell in left)
        for cell, seconds in progress(jobs, "cells", len(left)):
            if on_cell is not None:
                folder = done / cell.folder
                on_cell(cell, seconds, CellResult.load(folder).scores, read_history(folder / MODEL))
        if cells[0].alignment != NONE and not (done / "same.json").exists():
            first = [cell for cell in cells if cell.seed == cells[0].seed]
            for _ in pool([delayed(compare_functions)(values, first, done, device)]):
                pass
    about = {"model": cfg.model.name, "title": cfg.model.get("title", cfg.model.name)}
    write_json(done / ABOUT, {**about, "data": cfg.data.name, "root": str(cfg.data.get("root", ""))})
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    os.replace(done, out)


def run_cell(values: Mapping[str, Any], cell: Cell, work: Path, device: str) -> tuple[Cell, float]:
    """Train and evaluate one cell in this process; (cell, seconds it took)."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from attention_atlas import resolvers  # noqa: F401  (registers what conf/ uses)
    from attention_atlas.training.run import load_run, train_task

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


# What a worker process has prepared, by the configuration of data and training: read once for all its cells.
_PREPARED: dict[str, Any] = {}


def prepared_task(cfg: DictConfig) -> Any:
    """The task of `cfg` with its data read, from memory if this process has prepared it before."""
    from hydra.utils import instantiate

    from attention_atlas.paths import features_path
    from attention_atlas.training.run import build_task, run_config
    from attention_atlas.vision.features_file import FeaturesFile

    _, training, _ = run_config(cfg)
    key = json.dumps([training["task"], cfg.data.name, os.getcwd()], sort_keys=True, default=str)
    digest = hashlib.sha256(key.encode()).hexdigest()
    if digest not in _PREPARED:
        task = build_task(cfg)
        features = None
        if getattr(task, "uses_features", True):
            # Stays open: a task may read from it as long as it lives.
            features = FeaturesFile(features_path(cfg))
        task.prepare(instantiate(cfg.data.reader), features)
        _PREPARED.clear()
        _PREPARED[digest] = task
    return _PREPARED[digest]


def read_history(folder: Path) -> list[dict[str, float]]:
    """history.csv of a run folder, one dict per validation."""
    import csv

    with (folder / "history.csv").open(newline="", encoding="utf-8") as file:
        return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of single cells between those of all: bars are silent when stderr is no terminal."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield
