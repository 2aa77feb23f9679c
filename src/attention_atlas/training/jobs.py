"""What `pipeline.train` runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class Once:
    """One training of `cfg.model` on `cfg.train`, resumed after a kill; returns the best metrics."""

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        from hydra.utils import instantiate

        from attention_atlas.training.processes import process_count, processes
        from attention_atlas.training.run import build_task, prepare_and_train, run_config
        from attention_atlas.workflow.sweeps import is_done, mark_done, skipped

        path = cfg.paths.model
        out = job.out(path)
        in_sweep = out != Path(path)
        if skipped(cfg, in_sweep):
            return {}
        accumulate = run_config(cfg)[1]["loop"].get("accumulate", 1)
        count = process_count(accumulate, job.device, 1 if job.beside_others else cfg.workers)
        with processes(count) as together:  # they start while this one checks what it reads
            task = build_task(cfg)
            corpus = instantiate(cfg.data.reader)
            work = job.work()
            if is_done(out, work):
                return {}
            best = together(
                prepare_and_train,
                {"cfg": cfg, "work": work, "device": job.device},
                {
                    "task": task,
                    "corpus": corpus,
                    "out": out,
                    "on_metrics": lambda step, values: job.run.metrics(values, step),
                },
            )
        if in_sweep:
            mark_done(out, work)
        chosen = {"data": cfg.data.name, "seed": cfg.seed}
        job.run.model(cfg.model.name, chosen, out)
        return {f"best.{name}": value for name, value in best.items()}
