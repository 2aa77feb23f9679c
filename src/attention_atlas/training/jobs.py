"""The job of `pipeline.train`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class Once:
    """One training of `cfg.model` on `cfg.train`, resumed after a kill; returns the best metrics."""

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.training.processes import process_count, processes
        from attention_atlas.training.run import build_task, prepare_and_train, run_config
        from attention_atlas.workflow.ranks import follows
        from attention_atlas.workflow.sweeps import skipped

        path = cfg.paths.model
        out = job.out(path)
        if skipped(cfg, in_sweep=out != Path(path)):
            return {}
        accumulate = run_config(cfg)[1]["loop"].get("accumulate", 1)
        workers = 1 if job.beside_others else cfg.workers
        count = process_count(accumulate, job.device, workers, cfg.gpus)
        with processes(count, job.device) as together:  # they start while this one checks its inputs
            own: dict[str, Any] = {}
            if not follows():
                own = {
                    "task": build_task(cfg),
                    "corpus": instantiate(cfg.data.reader),
                    "out": out,
                    "on_metrics": lambda step, values: job.run.metrics(values, step),
                }
            best = together(prepare_and_train, {"cfg": cfg, "work": job.work(), "device": job.device}, own)
        job.run.model(cfg.model.name, {"data": cfg.data.name, "seed": cfg.seed}, out)
        return {f"best.{name}": value for name, value in best.items()}
