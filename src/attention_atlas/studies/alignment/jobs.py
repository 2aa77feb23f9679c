"""What the pipeline runs for study 3: trainings under every alignment, and the tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError
from attention_atlas.studies.metric_table import MetricTable

if TYPE_CHECKING:
    import pandas as pd
    from omegaconf import DictConfig

    from attention_atlas.workflow.stage import Job


class EveryAlignment:
    """Train and evaluate `cfg.model` on `cfg.data` under every alignment and seed.

    alignments: names in conf/alignments, None for all. seeds: {model or `default`: how many}. processes:
    trainings at a time, 0 for as many as `workers`."""

    def __init__(
        self,
        alignments: Sequence[str] | None = None,
        seeds: Mapping[str, int] | None = None,
        processes: int = 0,
    ) -> None:
        self.processes = processes  # `plan` and `config_of` read the others from `cfg.trainer`

    def __call__(self, cfg: DictConfig, job: Job) -> dict[str, float]:
        import os

        from attention_atlas.studies.alignment.log import log_run
        from attention_atlas.studies.alignment.runs import plan, train_runs
        from attention_atlas.workflow.ranks import launched

        if launched() > 1 or cfg.gpus != 1:
            raise ConfigError(
                "trainer: every_alignment runs several trainings, each in one process; give gpus=1 and no "
                "launcher, or trainer=once with one alignment"
            )

        runs, skipped = plan(cfg)
        if skipped:
            print(f"skipped: {skipped}")
        train_runs(
            cfg,
            runs,
            job.work(),
            job.out(cfg.outputs.runs),
            device=job.device,
            processes=self.processes or cfg.workers or os.cpu_count() or 1,
            on_run=lambda *found: log_run(Path.cwd(), job.run, cfg, *found),
        )
        return {}


class Metrics(MetricTable):
    """All tables of the study, from the runs of every model and data set."""

    def measure(self, cfg: DictConfig, job: Job, out: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
        from omegaconf import OmegaConf

        from attention_atlas.measures.table import write_table
        from attention_atlas.studies.alignment.panel import read_panel
        from attention_atlas.studies.alignment.run import NONE
        from attention_atlas.studies.alignment.study import about, study_table, write_examples
        from attention_atlas.studies.learning_table import learning_table

        wanted: Any = OmegaConf.to_container(cfg.study.panels, resolve=True)
        order = [str(name) for name in cfg.alignments]
        panels, blind = {}, []
        for name, panel in wanted.items():
            folder = job.input(f"{cfg.paths.runs}/{panel['model']}_{panel['data']}")
            panels[name] = read_panel(folder, order)
            if panel.get("blind"):
                blind_run = job.input(f"{cfg.paths.runs}/{panel['blind']}_{panel['data']}")
                blind.append(read_panel(blind_run, [NONE]))
        scores, lower = dict(cfg.study.score), list(cfg.study.lower)
        frame = study_table(
            list(panels.values()),
            blind,
            scores,
            cfg.study.reference,
            lower,
            cfg.study.name,
            cfg.seed,
        )
        titles = {str(name): str(entry.title) for name, entry in cfg.alignments.items()}
        write_examples(panels, scores, titles, lower, out, cfg.study.examples, cfg.seed)
        write_table(out / "tables/learning.csv", learning_table(Path(cfg.paths.runs), cfg.study.name))
        return frame, about(frame, panels, scores, titles, lower)
