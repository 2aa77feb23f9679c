"""From a configuration to a trained model in a run folder (models/run_folder.py).

A task that a stage can train (conf/train/<name>.yaml, `task._target_`) is a `loop.Task` that also has
`prepare(corpus, features)`, `model_sizes() -> dict` (what the model's constructor needs of the data) and
`save(folder)`. `prepare` gets the features file that `features` in conf/train names, or None. A task may
have `start(model)` (called once on the fresh model, e.g. to load weights) and `vocab`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.models.run_folder import build_model, instantiated, save_run
from attention_atlas.training.loop import train
from attention_atlas.training.settings import TrainSettings

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.data.corpus import Corpus

OnMetrics = Callable[[int, dict[str, float]], None]


def build_task(cfg: DictConfig) -> Any:
    """The task of `cfg.train`, with `cfg.model.training` merged over it."""
    _, training, seed = run_config(cfg)
    return instantiated(training["task"], "train: task", seed=seed)


def prepare_and_train(
    cfg: DictConfig,
    work: Path,
    device: str,
    join: Callable[[], None],
    task: Any = None,
    corpus: Corpus | None = None,
    out: Path | None = None,
    on_metrics: OnMetrics | None = None,
) -> dict[str, float]:
    """Train a model from `cfg` alone, in one of several processes (training/processes.py)."""
    from contextlib import nullcontext

    from hydra.utils import instantiate

    from attention_atlas.regions.features_file import FeaturesFile, with_regions
    from attention_atlas.workflow.stage import seed_everything

    seed_everything(int(cfg.seed))
    task = task or build_task(cfg)
    corpus = corpus or instantiate(cfg.data.reader)
    path = run_config(cfg)[1].get("features")
    with FeaturesFile(path) if path else nullcontext() as features:
        task.prepare(corpus if features is None else with_regions(corpus, features), features)
        join()
        return train_task(cfg, task, out, work, device, on_metrics)


def train_task(
    cfg: DictConfig,
    task: Any,
    out: Path | None,
    work: Path,
    device: str = "cpu",
    on_metrics: OnMetrics | None = None,
) -> dict[str, float]:
    """Train `cfg.model` on a prepared task with the settings of `cfg.train` and write the run folder `out`
    (None: another process writes it).

    Resumes from `work` after a kill. Returns the metrics of the checkpoint that was kept.
    """
    import torch

    model_config, training, seed = run_config(cfg)
    settings = TrainSettings.read(training["loop"], "train: loop")
    sizes = task.model_sizes()
    torch.manual_seed(seed)
    model = build_model(model_config, getattr(task, "vocab", None), **sizes)
    if hasattr(task, "start"):
        task.start(model)
    weights, history = train(task, model, settings, Path(work), device, seed, on_metrics)
    named = {"data": cfg.data.name, "seed": seed, "sizes": sizes}
    config = {"model": model_config, "train": training, **named}
    if out is not None:
        save_run(Path(out), weights, config, history)
        task.save(Path(out))
    metric, direction = task.best
    return (max if direction == "max" else min)(history, key=lambda row: row[metric])


def run_config(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any], int]:
    """Resolved model and train sections, the model's own training values merged in, and the seed."""
    from omegaconf import OmegaConf

    resolved: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    model, training = resolved["model"], resolved["train"]
    merged: Any = OmegaConf.to_container(OmegaConf.merge(training, model.get("training") or {}))
    return {k: v for k, v in model.items() if k != "training"}, merged, int(resolved["seed"])
