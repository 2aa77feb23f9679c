"""The sweeper of every script (conf/hydra/sweeper/resumable.yaml): Hydra's basic one, but it skips
finished jobs and checks the status file of each job at the end.

Hydra and the launchers cannot tell which jobs succeeded: a job that was killed, ran out of time or never
started has no return value, and the first failure would hide the others.
"""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.workflow.sweeps import forget_status, read_status

EXTRAS = {"joblib": "sweeps", "submitit": "slurm"}
PATIENCE = 30.0  # seconds
UNSTABLE = ("hydra.job.num", "hydra.job.id", "now:")


class ResumableSweeper(Sweeper):  # type: ignore[misc]  # Hydra has no types
    """Runs every combination of the values on the command line.

    max_batch_size: jobs to launch at a time, None for all. digest: of a composed job's configuration, code
    and inputs; "" if an input is missing.
    """

    digest: ClassVar[Callable[[DictConfig], str]]

    def __init__(self, max_batch_size: int | None = None) -> None:
        if max_batch_size is not None and max_batch_size < 1:
            raise ConfigError(
                f"hydra.sweeper.max_batch_size: {max_batch_size}: give a number above 0, or null"
            )
        self.size = max_batch_size

    def setup(self, *, hydra_context: Any, task_function: Any, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.hydra_context: Any = hydra_context
        self.config: Any = config
        try:
            self.launcher: Any = Plugins.instance().instantiate_launcher(
                hydra_context=hydra_context, task_function=task_function, config=config
            )
        except (RuntimeError, ImportError) as error:
            name = str(config.hydra.launcher._target_)
            extra = next((extra for word, extra in EXTRAS.items() if word in name), "sweeps")
            raise ConfigError(
                f"hydra/launcher: {name} is not installed ({_first_line(error)}); "
                f"pip install 'attention-atlas[{extra}]'"
            ) from None

    def sweep(self, arguments: list[str]) -> list[Any]:
        """Launch the jobs that are not done. Raises AtlasError if one of them is not done afterwards."""
        # Imported here: Hydra executes the file again when it looks for plugins.
        from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
        from hydra.core.override_parser.overrides_parser import OverridesParser

        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        (combinations,) = BasicSweeper.split_arguments(parser.parse_overrides(arguments), None)
        jobs = self._jobs([list(words) for words in combinations])
        folder = Path(self.config.hydra.sweep.dir)
        folder.mkdir(parents=True, exist_ok=True)
        OmegaConf.save(self.config, folder / "multirun.yaml")
        left = {path: words for path, (words, done) in jobs.items() if not done}
        for path in jobs:
            if path in left:
                forget_status(path)
            else:
                print(f"skipped: {path}: already done")
        problem: BaseException | None = None
        try:
            todo = list(left.values())
            for start in range(0, len(todo), self.size or max(len(todo), 1)):
                with _all_results():
                    self.launcher.launch(todo[start : start + (self.size or len(todo))], start)
        except (Exception, KeyboardInterrupt) as error:
            problem = error
        # On a shared file system a job's final status may arrive after the job has ended.
        patience = PATIENCE if "Slurm" in type(self.launcher).__name__ and problem is None else 0.0
        _check(list(left), len(jobs), folder, problem, patience)
        return []

    def _jobs(self, all_words: list[list[str]]) -> dict[Path, tuple[list[str], bool]]:
        """Folder of each job -> (its overrides, whether it is done)."""
        jobs: dict[Path, tuple[list[str], bool]] = {}
        for words in all_words:
            cfg = self.hydra_context.config_loader.load_sweep_config(self.config, words)
            sweep: Any = OmegaConf.to_container(cfg.hydra.sweep, resolve=False)
            subdir = str(sweep["subdir"])
            if any(part in subdir for part in UNSTABLE):
                raise ConfigError(
                    f"hydra.sweep.subdir: {subdir}: is not the same when the sweep is resumed; use "
                    "${hydra.job.override_dirname}"
                )
            path = Path(cfg.hydra.sweep.dir) / str(cfg.hydra.sweep.subdir)
            if path in jobs:
                raise ConfigError(
                    f"hydra.sweep.subdir: the jobs '{shlex.join(jobs[path][0])}' and '{shlex.join(words)}' "
                    f"would both write to {path}; give 'hydra.sweep.subdir=${{hydra.job.override_dirname}}'"
                )
            status = read_status(path)
            with read_write(cfg), open_dict(cfg):
                del cfg["hydra"]
            digest = status.get("status") == "done" and status.get("digest")
            done = bool(digest) and all(Path(path).exists() for path in status.get("written", ()))
            done = done and digest == type(self).digest(cfg)
            jobs[path] = (words, done)
        return jobs


@contextlib.contextmanager
def _all_results() -> Iterator[None]:
    """Make submitit's launcher wait for every job: it stops waiting at the first one that was killed."""
    if not any(name.startswith("hydra_plugins.hydra_submitit_launcher") for name in sys.modules):
        yield
        return
    from unittest.mock import patch

    from submitit import Job

    def wait(job: Any) -> list[None]:
        job.wait()
        return [None]

    with patch.object(Job, "results", wait):
        yield


def _check(
    paths: list[Path], total: int, folder: Path, problem: BaseException | None, patience: float = 0.0
) -> None:
    """Print a line for each job that is not done. Raise AtlasError with the command that runs only those."""
    until = time.monotonic() + patience
    while time.monotonic() < until and any(not _ended(path) for path in paths):
        time.sleep(1.0)
    failed = missing = 0
    for path in paths:
        status = read_status(path)
        if status.get("status") == "done":
            continue
        failed += bool(status)
        missing += not status
        print(f"{'failed' if status else 'missing'}: {path}: {_reason(status)}")
    if isinstance(problem, AtlasError) and not failed:
        raise problem
    if failed or missing:
        why = f" ({_first_line(problem)})" if problem is not None else ""
        raise AtlasError(
            f"{folder}: of {total} jobs {failed} failed and {missing} did not start{why}; this command runs "
            f"only those: {command(folder, sys.argv)}"
        )
    if problem is not None:
        raise problem


def _ended(path: Path) -> bool:
    return read_status(path).get("status") in ("done", "failed")


def _reason(status: Mapping[str, str]) -> str:
    if not status:
        return "did not start"
    if status.get("status") == "failed":
        return status.get("error", "")
    return "ended without a result (killed, or out of memory or time); see its log"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


def command(folder: Path, words: list[str]) -> str:
    """The command that resumes the sweep in `folder`, from the words of the one that began it."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    program = ["-m", str(spec.name)] if spec is not None else [words[0]]
    kept = [word for word in words[1:] if not word.startswith("hydra.sweep.dir=")]
    return shlex.join(["python", *program, *kept, f"hydra.sweep.dir={folder}"])
