"""What `pipeline.dump` runs: one model over a data set, or several models over the same texts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class ModelDump:
    """attention.h5 and statistics.h5 of `cfg.model` over `cfg.data`, as `cfg.capture` says.

    tasks: which values `task` of conf/model may have."""

    def __init__(self, tasks: list[str]) -> None:
        self.tasks = list(tasks)

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.dumps.dump import dump, read_settings
        from attention_atlas.models.load import load_model, source_of
        from attention_atlas.regions.features_file import FeaturesFile, with_regions
        from attention_atlas.workflow.digests import config_hash

        if cfg.model.task not in self.tasks:
            raise ConfigError(
                f"model={cfg.model.name}: is a model of task '{cfg.model.task}', and study="
                f"{cfg.study.name} dumps {', '.join(self.tasks)}; choose the study of that task"
            )
        # Which back end a kind got, and why.
        logging.basicConfig(format="%(message)s")
        logging.getLogger("attention_atlas.capture").setLevel(logging.INFO)
        corpus = instantiate(cfg.data.reader)
        features_file = job.input(cfg.paths.features)
        model, vocab, config = load_model(source_of(cfg, job), job.device)
        task = instantiate(cfg.capture.dump)
        with FeaturesFile(features_file) as features:
            task.prepare(with_regions(corpus, features), features, vocab, config)
            return dump(
                task,
                model,
                read_settings(cfg.capture.settings),
                job.out(cfg.paths.attention),
                job.work(),
                model_name=cfg.model.name,
                config_hash=config_hash(cfg),
                device=job.device,
            )


class RunsDump:
    """One forced pass over the same texts for each of `runs` (dumps/runs.py): <run>/attention.h5."""

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
