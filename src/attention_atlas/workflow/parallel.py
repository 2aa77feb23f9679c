"""`dvc repro` with several stages at a time: `python -m attention_atlas.workflow.parallel` in the repository.

One `dvc repro` runs its stages one after the other, and a stage seldom keeps all cores busy: it imports,
reads, validates and writes on one core. DVC's lock is free while a stage runs, so each stage that is ready
runs in its own `dvc repro --single-item`, several at a time. A final plain `dvc repro` reports failures or
confirms that everything is up to date.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.workflow.manifests import Manifests
from attention_atlas.workflow.tracking_origin import SESSION_VARIABLE
from attention_atlas.workflow.tracking_runs import kept

if TYPE_CHECKING:
    from dvc.stage import Stage

# Cores per training run when other stages run at the same time: two training runs with one process per core
# take longer than with one process each. Not set when hardly any other stage can run meanwhile.
CORES_VARIABLE = "ATLAS_CORES"
# Scripts that take several times as long as most stages, and how many times.
LONG, TIMES = ("pipeline.train", "pipeline.world"), 5
# Maximum number of jobs: a stage may start one process per core, and each needs some memory.
MOST, GIBIBYTES_EACH = 4, 4


def repro_side_by_side(
    root: Path, environment: Mapping[str, str], jobs: int = 0, targets: Sequence[str] = ()
) -> int:
    """Run `dvc repro` in `root`, `jobs` stages at a time (0: `jobs_here`). Returns 0 or DVC's exit status.
    targets: only these stages and their dependencies (none: all).

    Output lines are prefixed with their stage. All runs are nested under one MLflow parent. A stage is not
    started if a stage that it depends on fails; all others are.
    """
    cores = os.cpu_count() or 1
    if jobs < 0:
        raise ConfigError(f"jobs: {jobs}: give 0 (as many as fit) or more")
    jobs = jobs or jobs_here()
    session = f"{os.getpid()}-{time.time():.2f} {_title(root, targets)}"
    everywhere = {**environment, SESSION_VARIABLE: session}
    # The jobs share the cores; threads that wait for each other would be slower than one thread.
    share = str(max(1, cores // jobs))
    of_a_job = {"OMP_NUM_THREADS": share, **everywhere}
    waiting = stage_needs(root, targets)
    _mend_rwlock(root / ".dvc" / "tmp")
    all_needs = _with_their_needs(waiting)
    done: set[str] = set()
    running: dict[Future[int], str] = {}
    with _tracker(everywhere) as of_tracker, ThreadPoolExecutor(jobs) as pool:
        of_a_job |= of_tracker
        try:
            while True:
                ready = [name for name, needs in waiting.items() if needs <= done]
                for name in ready[: jobs - len(running)]:
                    del waiting[name]
                    others = {*waiting, *running.values()}
                    beside = sum(name not in all_needs[o] and o not in all_needs[name] for o in others)
                    own = of_a_job | ({CORES_VARIABLE: share} if beside >= 2 * jobs else {})
                    # --single-item: otherwise DVC also checks upstream stages, and takes a write lock on
                    # files that other jobs read.
                    running[pool.submit(_dvc, root, own, ["--single-item", name], name)] = name
                if not running:
                    break
                for ended in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(ended)
                    if ended.result() == 0:
                        done.add(name)
        except BaseException:  # Ctrl-C: running stages get it too; start no further stage
            pool.shutdown(cancel_futures=True)
            raise
    code = _dvc(root, everywhere, targets)
    if kept(root):  # MLflow was unreachable for a while
        subprocess.run([sys.executable, "-m", "attention_atlas", "track"], cwd=root, env=everywhere)
    if code == 0:
        sort_lock(root / "dvc.lock")
    return code


def _mend_rwlock(folder: Path) -> None:
    """Remove DVC's rwlock file if it is damaged: DVC writes it in place, and a kill can truncate it."""
    from dvc.lock import LockError, make_lock
    from dvc.rwlock import RWLOCK_FILE, RWLOCK_LOCK

    if (file := folder / RWLOCK_FILE).exists():
        # If the lock is taken, another DVC is at work and can read the file.
        with contextlib.suppress(LockError), make_lock(str(folder / RWLOCK_LOCK), tmp_dir=str(folder)):
            try:
                json.loads(file.read_bytes())
            except ValueError:
                file.unlink()


def _title(root: Path, targets: Sequence[str]) -> str:
    """The name of the runs' parent in MLflow."""
    params = root / "params.yaml"
    profile = re.search(r"^profile: *([\w-]+)", params.read_text("utf-8"), re.M) if params.exists() else None
    return " ".join(["reproduce", *([profile[1]] if profile else []), *targets])[:250]


@contextlib.contextmanager
def _tracker(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """One process that records the runs of all stages in MLflow; yields the variable that leads to it."""
    from attention_atlas.workflow.tracking import SOCKET_VARIABLE

    # Not in the repository: the path of a socket has at most about 100 characters.
    with tempfile.TemporaryDirectory(prefix="atlas-") as folder:
        path = str(Path(folder) / "tracker")
        with subprocess.Popen(
            [sys.executable, "-m", "attention_atlas.workflow.tracking_writer", path],
            env=dict(environment),
            stdin=subprocess.PIPE,  # the process ends with this one
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the stages, which then close their runs
        ):
            yield {SOCKET_VARIABLE: path}


def jobs_here() -> int:
    """One job per core, limited by memory and MOST."""
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return max(1, min(os.cpu_count() or 1, int(gibibytes / GIBIBYTES_EACH), MOST))


def stage_needs(root: Path, targets: Sequence[str] = ()) -> dict[str, set[str]]:
    """Each stage (of `targets` and their dependencies) and the stages it depends on, ordered by the longest
    remaining path to the end, longest first. Raises AtlasError for a target that is not a stage."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph  # edges lead from a stage to its dependencies
        by_name = {stage.name: stage for stage in graph}
        for name in targets:
            if name not in by_name:
                raise AtlasError(f"dvc.yaml: there is no stage '{name}'{did_you_mean(name, by_name)}")
        if targets:
            wanted = {by_name[name] for name in targets}
            graph = graph.subgraph(wanted.union(*(networkx.descendants(graph, stage) for stage in wanted)))
        way: dict[Stage, int] = {}
        for stage in networkx.topological_sort(graph):  # dependents first
            long = any(script in str(stage.cmd) for script in LONG)
            way[stage] = (TIMES if long else 1) + max((way[s] for s in graph.predecessors(stage)), default=0)
        order = sorted(graph, key=lambda stage: (-way[stage], stage.name))
        return {stage.name: {need.name for need in graph.successors(stage)} for stage in order}


def _with_their_needs(needs: Mapping[str, set[str]]) -> dict[str, set[str]]:
    """Each stage and all its direct and indirect dependencies."""
    found: dict[str, set[str]] = {}

    def all_of(name: str) -> set[str]:
        if name not in found:
            found[name] = needs[name].union(*map(all_of, needs[name]))
        return found[name]

    return {name: all_of(name) for name in needs}


def sort_lock(path: Path) -> None:
    """Sort the stages of dvc.lock by name instead of by completion: equal runs give equal files."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(path)) as data:
        stages = data["stages"]
        for name in sorted(stages):
            stages[name] = stages.pop(name)


_printing = threading.Lock()


def _dvc(root: Path, environment: Mapping[str, str], words: Sequence[str], name: str = "") -> int:
    command = [sys.executable, "-m", "attention_atlas.workflow.orphans", "--wait-for-lock", "repro", *words]
    if not name:
        return subprocess.run(command, cwd=root, env=dict(environment)).returncode
    with subprocess.Popen(
        command,
        cwd=root,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            with _printing:
                print(f"{name} | {line}", end="", flush=True)
    return process.returncode


def main() -> None:
    import argparse

    parser = argparse.ArgumentParser(description="dvc repro, several stages at a time.")
    parser.add_argument("targets", nargs="*", help="stages (default: all of dvc.yaml)")
    parser.add_argument("--jobs", type=int, default=0, help="stages at a time (0: by cores and memory)")
    arguments = parser.parse_args()
    exit_with(lambda: _repro(Path.cwd(), arguments.jobs, arguments.targets))


def _repro(root: Path, jobs: int, targets: Sequence[str]) -> int:
    if (root / "conf").is_dir():
        Manifests(root).write_graph()
    return repro_side_by_side(root, os.environ, jobs, targets)


def exit_with(job: Callable[[], int]) -> None:
    """Exit with the status that `job` returns; an AtlasError becomes one line."""
    try:
        raise SystemExit(job())
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        print("interrupted; run the same command to resume", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
