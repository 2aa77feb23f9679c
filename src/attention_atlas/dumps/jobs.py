"""The jobs of `pipeline.dump`: one model over a data set, or several models over the same texts."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from torch import nn

    from attention_atlas.dumps.batches import DumpTask
    from attention_atlas.dumps.dump import Engine, Shard
    from attention_atlas.models.load import Source
    from attention_atlas.workflow.stage import Job

ENGINES = ("local", "ray")


class ModelDump:
    """attention.h5 and statistics.h5 of `cfg.model` over `cfg.data`, as `cfg.capture` says.

    tasks: which values `task` of conf/model may have."""

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = list(tasks)

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.models.load import load_model, source_of
        from attention_atlas.regions.features_file import FeaturesFile, with_regions

        self._check(cfg)
        corpus = instantiate(cfg.data.reader)
        features_file = job.input(cfg.paths.features)
        source = source_of(cfg, job)
        model, vocab, config = load_model(source, job.device)
        task = instantiate(cfg.capture.dump)
        with FeaturesFile(features_file) as features:
            task.prepare(with_regions(corpus, features), features, vocab, config)
            return _dumped(cfg, job, task, model, functools.partial(_load, _anywhere(source)))

    def _check(self, cfg: DictConfig) -> None:
        if cfg.model.task not in self.tasks:
            raise ConfigError(
                f"model={cfg.model.name}: is a model of task '{cfg.model.task}', and study="
                f"{cfg.study.name} dumps {', '.join(self.tasks)}; choose the study of that task"
            )


class VlmModelDump(ModelDump):
    """The same for a vision LLM, which makes its inputs from images itself."""

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.models.load import source_of
        from attention_atlas.models.vlm.load import load_vlm

        self._check(cfg)
        corpus = instantiate(cfg.data.reader)
        if cfg.capture.engine != "local":  # images are read in processes with another working directory
            corpus = replace(corpus, root=Path(corpus.root).absolute())
        source = source_of(cfg, job)
        loaded = load_vlm(source, job.device)
        task = instantiate(cfg.capture.dump)
        task.prepare(corpus, None, loaded.inputs, {})
        return _dumped(cfg, job, task, loaded.model, functools.partial(_load_vlm, _anywhere(source)))


def _dumped(
    cfg: DictConfig, job: Job, task: DumpTask, model: nn.Module, load: Callable[[str], nn.Module]
) -> dict[str, float]:
    """Run the dump. load: loads the model again in another process."""
    from attention_atlas.dumps.dump import dump, read_settings
    from attention_atlas.recording.index import shard_path
    from attention_atlas.workflow.digests import config_hash

    # Print which back end a kind got, and why.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("attention_atlas.capture").setLevel(logging.INFO)
    shard, settings = shard_of(cfg, job), read_settings(cfg.capture.settings)
    whole = shard.shards == 1
    out = job.out(cfg.paths.attention) if whole else Path(cfg.paths.attention)
    if not whole:
        job.written += [shard_path(out / name, shard.shard, shard.shards) for name in settings.files()]
    return dump(
        task,
        model,
        settings,
        out,
        job.work() if whole else Path(),
        model_name=cfg.model.name,
        config_hash=config_hash(cfg),
        device=job.device,
        shard=shard,
        engine=engine_of(cfg, load),
    )


def shard_of(cfg: DictConfig, job: Job) -> Shard:
    """The shard that `cfg.capture` names. Jobs of a sweep share one folder of shards, so a digest of code and
    inputs keeps those of different runs apart."""
    from attention_atlas.dumps.dump import Shard

    shard = Shard(cfg.capture.shard, cfg.capture.shards)
    return replace(shard, work=job.digest()) if shard.shards > 1 else shard


def engine_of(cfg: DictConfig, load: Callable[[str], nn.Module]) -> Engine | None:
    """The engine that runs the batches; None: this process. load: loads the model on a device."""
    from attention_atlas.dumps.on_ray import RayEngine

    capture = cfg.capture
    if capture.engine == "local":
        return None
    if capture.engine != "ray":
        raise ConfigError(f"capture.engine: '{capture.engine}'{did_you_mean(str(capture.engine), ENGINES)}")
    return RayEngine(load, capture.actors, capture.readers, cfg.device.dump)


def _anywhere(source: Source) -> Source:
    """The source with absolute paths, for a process that may have another working directory."""
    if isinstance(source, Path):
        return source.absolute()
    there = {key: value for key, value in source.items() if isinstance(value, str) and os.path.exists(value)}
    return {**source, **{key: os.path.abspath(value) for key, value in there.items()}}


def _load(source: Source, device: str) -> nn.Module:
    from attention_atlas.models.load import load_model

    model: nn.Module = load_model(source, device)[0]
    return model


def _load_vlm(source: Source, device: str) -> nn.Module:
    from attention_atlas.models.vlm.load import load_vlm

    model: nn.Module = load_vlm(source, device).model
    return model


class RunsDump:
    """One teacher-forced pass over the same texts for each of `runs` (dumps/runs.py): <run>/attention.h5."""

    def __init__(self, runs: Mapping[str, Any], split: str = "test") -> None:
        self.split = split
        self.runs = {str(name): dict(run) for name, run in runs.items()}

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.dumps.runs import dump_runs
        from attention_atlas.models.load import source_of
        from attention_atlas.regions.features_file import FeaturesFile, with_regions
        from attention_atlas.workflow.digests import config_hash

        names = dict.fromkeys(str(run["model"]) for run in self.runs.values())
        models = {name: source_of(cfg, job, name) for name in names}
        corpus = instantiate(cfg.data.reader)
        features_file = job.input(cfg.paths.features)
        with FeaturesFile(features_file, check_values=False) as features:
            return dump_runs(
                self.runs,
                models.__getitem__,
                with_regions(corpus, features),
                features,
                out=job.out(cfg.paths.attention),
                work=job.work(),
                split=self.split,
                config_hash=config_hash(cfg),
                seed=cfg.seed,
                device=job.device,
            )
