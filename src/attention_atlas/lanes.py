"""`dvc repro` of the studies side by side, for runs whose stages are too short to use all cores themselves.

DVC runs the stages of one `dvc repro` one after the other. Its lock is free while a stage runs, so several of
them may work on different stages of one repository: first one on what the studies share, then one for each
study, which share nothing else, and at last a plain `dvc repro` does what is left (the report) and whatever a
lane did not do.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from attention_atlas.tracking import SESSION_VARIABLE

# Stages that several studies read from.
SHARED = ("world", "annotate", "features", "ocr")
# What the names of a study's stages begin with, those that take longest first.
STUDIES = ("alignment", "vllm", "grounding", "modality", "vilt")


def repro_side_by_side(root: Path, environment: Mapping[str, str]) -> int:
    """`dvc repro` in `root`, as many studies at a time as there are cores; 0, or DVC's exit status.

    The lines of a lane begin with its study. All stages are under one MLflow parent.
    """
    lanes = min(os.cpu_count() or 1, len(STUDIES))
    session = f"{os.getpid()}-{time.time():.2f} dvc repro, {lanes} studies at a time"
    everywhere = {**environment, SESSION_VARIABLE: session}
    stages = stages_in_order(root)
    # --single-item: a lane that walked up to a shared stage would find it locked, as DVC locks for writing what
    # it only checks.
    alone = ["--single-item"]
    shared = [name for name in stages if _kind(name) in SHARED]
    code = _dvc(root, everywhere, alone + shared) if shared else 0
    if code == 0:
        # The lanes share the cores; threads that wait for each other would take longer than one alone.
        of_a_lane = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // lanes)), **everywhere}
        wanted = {study: [n for n in stages if n.startswith(f"{study}_")] for study in STUDIES}
        with ThreadPoolExecutor(lanes) as pool:
            for study, names in wanted.items():
                if names:
                    pool.submit(_dvc, root, of_a_lane, alone + names, study)
        code = _dvc(root, everywhere, [])  # meets again what failed in a lane
    return code


def stages_in_order(root: Path) -> list[str]:
    """The names of all stages, each behind those it needs."""
    import networkx
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        # An edge leads from a stage to what it needs.
        return [stage.name for stage in networkx.topological_sort(repo.index.graph)][::-1]


def _kind(name: str) -> str:
    return name.partition("@")[0]


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
                print(f"{name:<10}{line}", end="", flush=True)
    return process.returncode
