"""`dvc repro` of the studies side by side, for runs whose stages are too short to use all cores themselves.

DVC runs the stages of one `dvc repro` one after the other. Its lock is free while a stage runs, so several of
them may work on different stages of one repository: one for each world with its texts and regions, then one
for each study, which share nothing else. At last a plain `dvc repro` does what is left (the report) and what
a lane left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

from attention_atlas.tracking import SESSION_VARIABLE

# Stages that several studies read from, and the one that reads from all studies.
SHARED, LAST = ("world", "annotate", "features", "ocr"), "report"


def repro_side_by_side(root: Path, environment: Mapping[str, str]) -> int:
    """`dvc repro` in `root`, as many lanes at a time as there are cores; 0, or DVC's exit status.

    The lines of a lane begin with its world or study. All stages are under one MLflow parent.
    """
    cores = os.cpu_count() or 1
    session = f"{os.getpid()}-{time.time():.2f} dvc repro, in lanes"
    everywhere = {**environment, SESSION_VARIABLE: session}
    for lanes in stages_in_lanes(root):
        count = max(1, min(cores, len(lanes)))
        # The lanes share the cores; threads that wait for each other would take longer than one alone.
        of_a_lane = {"OMP_NUM_THREADS": str(max(1, cores // count)), **everywhere}
        with ThreadPoolExecutor(count) as pool:
            # --single-item: a lane that walked up to what another one reads would find it locked, as DVC
            # locks for writing what it only checks.
            running = [
                pool.submit(_dvc, root, of_a_lane, ["--single-item", *stages], name)
                for name, stages in lanes.items()
            ]
            try:
                wait(running)
            except BaseException:  # Ctrl-C: what runs has got it too; what waits must not begin
                for lane in running:
                    lane.cancel()
                raise
    code = _dvc(root, everywhere, [])  # meets again what failed in a lane
    if code == 0:
        sort_lock(root / "dvc.lock")
    return code


def sort_lock(path: Path) -> None:
    """Put the stages of dvc.lock, which stand there in the order of their ends, in that of their names: equal
    runs give equal files."""
    from dvc.utils.serialize import modify_yaml

    with modify_yaml(str(path)) as data:
        stages = data["stages"]
        for name in sorted(stages):
            stages[name] = stages.pop(name)


def stages_in_lanes(root: Path) -> list[dict[str, list[str]]]:
    """Lanes (name -> stages, each behind those it needs) that need nothing of each other: first those of what
    is shared, then those of the studies. The longest lanes come first."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        graph = repo.index.graph
        shared = [s for s in graph if s.name.partition("@")[0] in SHARED]
        own = [s for s in graph if s not in shared and s.name != LAST]
        return [_lanes(graph, shared, lambda n: n.partition("@")[2]), _lanes(graph, own, _study)]


def _study(name: str) -> str:
    return name.partition("_")[0]


def _lanes(graph: Any, stages: Sequence[Any], title: Callable[[str], str]) -> dict[str, list[str]]:
    import networkx

    part = graph.subgraph(stages)
    found: dict[str, list[str]] = {}
    # An edge leads from a stage to what it needs.
    for joined in networkx.weakly_connected_components(part):
        names = [s.name for s in networkx.topological_sort(part.subgraph(joined))][::-1]
        found.setdefault(title(names[0]), []).extend(names)
    return dict(sorted(found.items(), key=lambda item: (-len(item[1]), item[0])))


_printing = threading.Lock()


def _dvc(root: Path, environment: Mapping[str, str], words: Sequence[str], name: str = "") -> int:
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", *words]
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
                print(f"{name:<13}{line}", end="", flush=True)
    return process.returncode
