"""Training and evaluating every run of one model on one data set: alignments times seeds.

A finished run is a folder moved into the work folder, so a killed stage resumes with the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.files import move, write_json
from attention_atlas.models.run_folder import read_history
from attention_atlas.progress import progress
from attention_atlas.studies.alignment.panel import ABOUT
from attention_atlas.studies.alignment.result import RunResult
from attention_atlas.studies.alignment.run import MODEL, NONE, TrainingRun, train_run
from attention_atlas.workflow.sweeps import uses_alignment

if TYPE_CHECKING:
    from omegaconf import DictConfig


OnRun = Callable[[TrainingRun, float, Mapping[str, float], list[dict[str, float]]], None]


def plan(cfg: DictConfig) -> tuple[list[TrainingRun], str]:
    """The runs of `cfg.model` in the study, and a line on what is skipped ("" if nothing).

    Raises ConfigError for a model that cannot be evaluated, an unknown alignment, or an empty list of seeds.
    """
    name = cfg.model.name
    if cfg.model.get("evaluator") is None:
        raise ConfigError(
            f"conf/model/{name}.yaml: evaluator: missing; only models of the alignment study have one"
        )
    wanted = list(cfg.trainer.alignments or cfg.alignments)
    for alignment in wanted:
        if alignment not in cfg.alignments:
            raise ConfigError(
                f"conf/study: alignments: '{alignment}' is not in conf/alignments"
                f"{did_you_mean(alignment, list(cfg.alignments))}"
            )
    counts = cfg.trainer.seeds
    seeds = [int(cfg.seed) + k for k in range(int(counts.get(name, counts.default)))]
    if not seeds or not wanted:
        raise ConfigError(f"conf/study: no seeds or alignments for model {name}; give at least one")
    if not uses_alignment(cfg.model):
        return [TrainingRun(NONE, seed) for seed in seeds], (
            f"model {name} takes no alignment: trained once per seed, not {len(wanted)} times"
        )
    return [TrainingRun(alignment, seed) for seed in seeds for alignment in wanted], ""


def train_runs(
    cfg: DictConfig,
    runs: Sequence[TrainingRun],
    work: Path,
    out: Path,
    device: str = "cpu",
    processes: int = 1,
    on_run: OnRun | None = None,
) -> None:
    """Train and evaluate all runs, then compare the functions, and move everything to `out`.

    `on_run(run, seconds, scores, history)` is called in this process when a run is done.
    """
    from joblib import Parallel, delayed, parallel_config
    from omegaconf import OmegaConf

    from attention_atlas.studies.alignment.same import compare_functions
    from attention_atlas.threads import cpu_threads

    done = work / "done"
    left = [run for run in runs if not (done / run.folder).is_dir()]
    values: Any = OmegaConf.to_container(cfg, resolve=False)
    count = max(1, min(processes, len(left)))
    setting = cpu_threads(1) if count == 1 else parallel_config("loky", inner_max_num_threads=1)
    with setting, Parallel(n_jobs=count, return_as="generator_unordered") as pool:
        jobs = pool(delayed(train_run)(values, run, work, device) for run in left)
        for run, seconds in progress(jobs, "runs", len(left)):
            if on_run is not None:
                folder = done / run.folder
                on_run(run, seconds, RunResult.load(folder).scores, read_history(folder / MODEL))
        if runs[0].alignment != NONE and not (done / "same.json").exists():
            first = [run for run in runs if run.seed == runs[0].seed]
            for _ in pool([delayed(compare_functions)(values, first, done, device)]):
                pass
    about = {"model": cfg.model.name, "title": cfg.model.get("title", cfg.model.name)}
    write_json(done / ABOUT, {**about, "data": cfg.data.name})
    move(done, out)
