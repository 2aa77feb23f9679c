"""Shared by all scripts in pipeline/: Hydra, one-line errors, device, seeds, work folder, MLflow run."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from attention_atlas.errors import AtlasError, ConfigError, system_error
from attention_atlas.workflow.compose import check_overrides, config_error, profile_files
from attention_atlas.workflow.digests import content_hash, work_digest
from attention_atlas.workflow.graph import inputs_of, overlap, paths_in
from attention_atlas.workflow.memory import collect_seldom, keep_freed_memory
from attention_atlas.workflow.orphans import PATIENCE, end_with_parent
from attention_atlas.workflow.ranks import Silent, check_launched, follows

if TYPE_CHECKING:
    from filelock import BaseFileLock

# Read when torch loads OpenMP: threads that spin while waiting make a step ten times slower when anything
# else runs on the machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
keep_freed_memory()
collect_seldom()


class Job:
    """The second argument of a stage function: outputs, inputs, work folder, device and MLflow run.

    inputs: the files and folders that the configuration names (workflow/graph.py)."""

    def __init__(
        self,
        name: str,
        cfg: DictConfig,
        run: Any,
        sweep_dir: Path | None,
        hash_of: Callable[[Path], str] = content_hash,
        written: list[Path] | None = None,
    ) -> None:
        from attention_atlas.devices import resolve_device

        self.name, self.cfg, self.run = name, cfg, run
        self.inputs = present_inputs(cfg)
        self.written = [] if written is None else written  # outputs that a finished job of a sweep must have
        self._sweep_dir = sweep_dir
        self.beside_others = sweep_dir is not None and _launches_together()
        self.device = resolve_device(cfg.device[name], name)
        self._work: Path | None = None
        self._lock: BaseFileLock | None = None
        self._hash = hash_of

    def out(self, path: str) -> Path:
        """Where an output goes: `path`, which DVC owns, or the job's folder in a sweep."""
        place = self._sweep_dir / Path(path).name if self._sweep_dir else Path(path)
        self.written.append(place)
        return place

    def work(self) -> Path:
        """A folder outside the outputs that survives a kill. Its name is a digest of the configuration, the
        code and the content of all inputs, so that only the same work is resumed. Removed on success.

        Raises AtlasError while another process uses it, or if an input is missing."""
        from attention_atlas.files import lock

        work = Path(".work") / self.name / self.digest()
        work.mkdir(parents=True, exist_ok=True)
        if follows():  # the first process holds the lock and removes the folder
            return work
        # Beside the folder, not in it: some stages empty their work folder.
        # A stage whose `dvc` was killed ends by itself soon, and then leaves its work to this one.
        patience = PATIENCE if "DVC_STAGE" in os.environ else 0.0
        self._lock = lock(work.with_suffix(".lock"), work, patience)
        work.mkdir(exist_ok=True)  # its previous owner may have succeeded and removed it
        self._work = work
        return work

    def digest(self) -> str:
        """Digest of the configuration, the code and the content of all inputs."""
        for path in self.inputs:
            self.input(path)
        return work_digest(self.cfg, self.inputs, self._hash)

    def input(self, path: str | Path) -> Path:
        """Check that an input exists and is one of `inputs`, inside one or contains one, and log its digest
        to MLflow."""
        path = Path(path)
        if not any(overlap(str(path), known) for known in self.inputs):
            raise ConfigError(f"{path}: the configuration does not name it; add it to `inputs` in conf/")
        if not path.exists():
            raise AtlasError(f"{path}: no such file or folder; run the stage that writes it (dvc repro)")
        self.run.input(path, self._hash(path))
        return path

    def finish(self) -> None:
        """Remove the work folder and its lock, after success."""
        if self._work is not None:
            shutil.rmtree(self._work, ignore_errors=True)
            self._work.with_suffix(".lock").unlink(missing_ok=True)
        self.release()

    def release(self) -> None:
        """Free the work folder for other processes, after a failure."""
        if self._lock is not None:
            self._lock.release()


def present_inputs(cfg: DictConfig) -> list[str]:
    """The files and folders that a configuration names for reading, including those that a user gave
    outside data/."""
    values: Any = OmegaConf.to_container(cfg, resolve=True)
    return inputs_of(values, list(paths_in(values["outputs"])), os.path.exists)


def job_digest(cfg: DictConfig, hash_of: Callable[[Path], str] = content_hash) -> str:
    """`work_digest` of a configuration; "" if an input is missing."""
    inputs = present_inputs(cfg)
    return work_digest(cfg, inputs, hash_of) if all(Path(path).exists() for path in inputs) else ""


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and (if a stage has loaded it) torch."""
    import random

    import numpy as np

    random.seed(seed)
    np.random.seed(seed)
    if "torch" in sys.modules:
        import torch

        torch.manual_seed(seed)


def stage(name: str) -> Callable[[Callable[[DictConfig, Job], Any]], Callable[[], None]]:
    """Make `function(cfg, job)` a Hydra program whose configuration is conf/stage/<name>.yaml."""

    def decorate(function: Callable[[DictConfig, Job], Any]) -> Callable[[], None]:
        errors: list[AtlasError] = []

        @functools.wraps(function)
        def job(cfg: DictConfig) -> Any:
            try:
                return run_stage(name, function, cfg)
            except Exception as raised:
                error = _atlas_error(raised)
                if error is None and not _is_sweep():
                    raise
                if error is None:  # the sweep reports one line, and not every exception can be pickled
                    traceback.print_exc()
                    error = AtlasError(f"{type(raised).__name__}: {raised}")
                if _is_sweep():
                    raise error from None
                # Raised after Hydra returns, which would print several lines about it.
                errors.append(error)
                return None

        def main() -> None:
            try:
                check_launched(name, in_sweep=any(word in ("-m", "--multirun") for word in sys.argv[1:]))
                # Not for --help or a sweep's parent.
                if not follows() and not any(word.startswith("-") for word in sys.argv[1:]):
                    from attention_atlas.workflow.tracking import start_writer

                    start_writer()
                if "DVC_STAGE" in os.environ:
                    end_with_parent()
                _hydra(name, job)
                for error in errors:
                    raise error
            except AtlasError as error:
                _end(str(error), error.exit_code)
            except KeyboardInterrupt:
                _end("interrupted; run the same command to resume", 130)

        return main

    return decorate


def _atlas_error(raised: BaseException) -> AtlasError | None:
    """The AtlasError that `raised` is or wraps (Hydra's instantiate wraps what a constructor raises), or that
    describes a full disk or a missing permission."""
    seen: BaseException | None = raised
    while seen is not None:
        found = seen if isinstance(seen, AtlasError) else system_error(seen)
        if found is not None:
            return found
        seen = seen.__cause__
    return None


def _is_sweep() -> bool:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _launches_together() -> bool:
    """Whether the jobs of this sweep run in parallel on one machine."""
    from hydra.core.hydra_config import HydraConfig

    return not str(HydraConfig.get().launcher._target_).endswith((".BasicLauncher", ".SlurmLauncher"))


def resolved(cfg: DictConfig) -> tuple[DictConfig, dict[str, Any]]:
    """`cfg` with `effort` and `limit` applied, and all its values resolved.

    Raises ConfigError for a missing or invalid value."""
    from attention_atlas.workflow.limit import limited, longer
    from attention_atlas.workflow.params import check_values

    given: Any = OmegaConf.to_container(cfg, resolve=False)
    check_values(given)
    try:
        cfg = limited(longer(cfg))
        values: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except Exception as error:
        raise config_error(error) from None
    return cfg, values


def run_stage(name: str, function: Callable[[DictConfig, Job], Any], cfg: DictConfig) -> Any:
    from hydra.core.hydra_config import HydraConfig

    from attention_atlas.workflow.params import read_params
    from attention_atlas.workflow.sweeps import job_status
    from attention_atlas.workflow.tracking import stage_run
    from attention_atlas.workflow.tracking_title import described

    # Workers of a parallel launcher import this module without the script's `__main__` guard.
    read_params()
    hydra_cfg = HydraConfig.get()
    sweep_dir = None
    if _is_sweep():
        sweep_dir = Path(hydra_cfg.runtime.output_dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
    cfg, config = resolved(cfg)
    choices = hydra_cfg.runtime.choices
    title, keys, tags = described(name, cfg, choices, sweep_dir)
    logged = {**config, **keys}
    tracked = nullcontext(Silent()) if follows() else stage_run(Path.cwd(), title, logged, tags)
    hash_of = functools.cache(content_hash)  # a world has thousands of files
    written: list[Path] = []
    current = None
    try:
        # The job counts as done before MLflow receives the rest of the run, which can take minutes.
        with tracked as run, job_status(sweep_dir, lambda: job_digest(cfg, hash_of), written):
            current = Job(name, cfg, run, sweep_dir, hash_of, written)
            seed_everything(int(cfg.seed))
            result = function(cfg, current)
        current.finish()
        return result
    finally:
        if current is not None:
            current.release()


def _hydra(name: str, job: Callable[[DictConfig], Any]) -> None:
    import hydra
    import yaml
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from attention_atlas.workflow.sweeper import ResumableSweeper

    # Hydra would print several lines and exit; print one line instead.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    conf = Path.cwd() / "conf"
    if not conf.is_dir():
        raise ConfigError("conf/: no such folder here; run from the repository root")
    _check_params()
    check_overrides(sys.argv[1:])
    hash_of = functools.cache(content_hash)  # once for all jobs
    ResumableSweeper.digest = staticmethod(lambda cfg: job_digest(resolved(cfg)[0], hash_of))
    try:
        with profile_files(conf.parent, sys.argv[1:]):
            hydra.main(version_base="1.3", config_path=str(conf), config_name=f"stage/{name}")(job)()
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise config_error(error) from None


def _check_params() -> None:
    from attention_atlas.workflow.params import read_params

    read_params()


def _end(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)
