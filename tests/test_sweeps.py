"""Sweeps on joblib, submitit's local executor and SLURM's script: nothing that failed is taken for done, and
one command runs what is missing, and only that."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.workflow.sweeps import read_status
from attention_atlas.workflow.tracking import DATA, EXPERIMENT

# Seed 2 meets bad input, seed 3 dies without a word, seed 4 is a defect of the program; until a file says so.
PROBE = """
import os
import signal
from pathlib import Path

from attention_atlas.errors import AtlasError
from attention_atlas.workflow.stage import stage

@stage("world")
def main(cfg, job):
    with open("started.txt", "a") as file:
        print(cfg.seed, file=file)
    if not Path("mended").exists():
        if cfg.seed == 2:
            raise AtlasError("words.csv: row 7: no text; correct it")
        if cfg.seed == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        if cfg.seed == 4:
            raise ZeroDivisionError("a defect")
    job.run.metrics({"seed squared": cfg.seed**2})

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "probe.py").write_text(PROBE)
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), **variables}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def started(folder: Path) -> list[int]:
    path = folder / "started.txt"
    found = sorted(int(line) for line in path.read_text().split()) if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def rest(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The words of the command that the sweep's last line gives."""
    line = result.stderr.strip().splitlines()[-1]
    assert line.startswith("error: ") and "this command runs only those: python " in line, result.stderr
    return shlex.split(line.partition("only those: python ")[2])


@pytest.mark.slow
def test_submitit_names_what_failed_and_one_command_runs_only_that(project: Path) -> None:
    from mlflow import MlflowClient

    first = run(project, "probe.py", "-m", "hydra/launcher=local", "seed=1,2,3")
    assert first.returncode == 1, first.stdout + first.stderr
    assert started(project) == [1, 2, 3], "a job that dies must not end the others"
    (folder,) = (project / "multirun").iterdir()
    name = folder.relative_to(project)
    assert sorted(first.stdout.splitlines()) == [
        f"failed: {name}/seed=2: words.csv: row 7: no text; correct it",
        f"failed: {name}/seed=3: ended without a result (killed, or out of memory or time); see its log",
    ]
    assert f"{name}: of 3 jobs 2 failed and 0 did not start" in first.stderr
    assert "Traceback" not in first.stderr
    assert read_status(folder / "seed=1")["status"] == "done"
    words = rest(first)
    assert words[-1] == f"hydra.sweep.dir={name}" and words.count("seed=1,2,3") == 1

    (project / "mended").touch()
    second = run(project, *words)
    assert second.returncode == 0, second.stdout + second.stderr
    assert started(project) == [2, 3] and f"skipped: {name}/seed=1: already done" in second.stdout

    # What a killed job did not send.
    assert run(project, "-m", "attention_atlas", "track").returncode == 0
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name(f"{EXPERIMENT}/{DATA}")
    found = list(client.search_runs([experiment.experiment_id]))
    parents = [r for r in found if "atlas.session" in r.data.tags]
    children = [r for r in found if "atlas.session" not in r.data.tags]
    assert len(parents) == 1 and len(children) == 5, "one parent for the sweep and its continuation"
    assert parents[0].info.status == "FINISHED", "the last run of each job has succeeded"
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parents[0].info.run_id}
    finished = [r.data.metrics["seed squared"] for r in children if r.info.status == "FINISHED"]
    assert sorted(finished) == [1, 4, 9]
    assert not (project / "data").exists(), "a sweep must not touch what DVC owns"


# What a cluster has, as far as submitit calls it: sbatch runs the elements of the array here.
SBATCH = """#!/bin/bash
cp "$1" script.sh
for i in 0 1; do
  SLURM_JOB_ID=$((78 + i)) SLURM_ARRAY_JOB_ID=77 SLURM_ARRAY_TASK_ID=$i SLURM_CPUS_PER_TASK=8 \\
    SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NODEID=0 SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_JOB_NODELIST=x \\
    bash "$1" > log_$i.txt 2>&1 < /dev/null &
done
echo "Submitted batch job 77"
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do case $1 in --output|--error) shift 2;; *) shift;; esac; done
exec "$@"
"""
SACCT = """#!/bin/bash
printf 'JobID|State|NodeList\\n77_0|RUNNING|here\\n77_1|RUNNING|here\\n'
"""


@pytest.mark.slow
def test_slurm_gets_one_array_whose_jobs_report_as_any_other(project: Path) -> None:
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("sacct", SACCT)):
        (project / name).write_text(text)
        (project / name).chmod(0o755)
    words = ("hydra/launcher=slurm", "hydra.launcher.partition=gpu", "seed=1,4")
    result = run(project, "probe.py", "-m", *words, PATH=f"{project}:{os.environ['PATH']}")
    script = (project / "script.sh").read_text().splitlines()
    wanted = ("array=0-1%2", "partition=gpu", "cpus-per-task=8", "gpus-per-node=1", "mem=32GB", "time=240")
    assert {f"#SBATCH --{word}" for word in wanted} <= set(script)
    assert "export ATLAS_CORES=$SLURM_CPUS_PER_TASK" in script
    (parent,) = [line for line in script if line.startswith("export ATLAS_SESSION=")]
    assert shlex.split(parent)[1].startswith("ATLAS_SESSION=sweep-")
    assert result.returncode == 1 and started(project) == [1, 4]
    assert "seed=4: ZeroDivisionError: a defect" in result.stdout
    assert "of 2 jobs 1 failed and 0 did not start" in result.stderr and "Traceback" not in result.stderr
    assert "in main" in (project / "log_1.txt").read_text(), "where the defect is, for who looks for it"


def test_jobs_in_one_folder_and_folders_that_change_are_refused(project: Path) -> None:
    for subdir, reason in (("same", "would both write to"), ("'${hydra.job.num}'", "is not the same when")):
        result = run(project, "probe.py", "-m", f"hydra.sweep.subdir={subdir}", "seed=1,5")
        assert result.returncode == 2 and reason in result.stderr, result.stderr
        assert len(result.stderr.strip().splitlines()) == 1 and not started(project)


def test_a_launcher_that_cannot_start_is_one_line(project: Path) -> None:
    result = run(project, "probe.py", "-m", "hydra/launcher=slurm", "seed=1,5", PATH="/nowhere")
    assert result.returncode == 1 and not started(project)
    assert "of 2 jobs 0 failed and 2 did not start (Could not detect" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_names_of_folders_differ_where_overrides_do() -> None:
    from attention_atlas.workflow.resolvers import _folder_name

    assert _folder_name("model=lstm,seed=0") == "model=lstm,seed=0"
    odd = [_folder_name(f"paths.a={value}") for value in ("x/y", "x y", "x" * 300, "x" * 301)]
    assert len(set(odd)) == 4 and all(len(name) <= 150 and "/" not in name for name in odd)
