"""Sweeps and a training of two nodes on a real SLURM, with accounting, which the tests start on loopback."""

from __future__ import annotations

import getpass
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from test_sweeps import project, rest, run, started  # noqa: F401  (a fixture)
from test_tracking_server import free_port, wait_until
from test_training_launchers import project as training_project  # noqa: F401  (a fixture)

from attention_atlas.workflow.tracking import DATA, EXPERIMENT

PROGRAMS = (
    *("munged", "mariadbd", "mariadb-install-db"),
    *("slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr"),
)
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
MISSING = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason="needs Debian's packages slurm-wlm, slurmdbd, mariadb-server"),
]
# Two nodes on one machine.
NODES = ("n1", "n2")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2
MpiDefault=none
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={slurmdbd}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/linux
GresTypes=gpu
NodeName={nodes[0]} NodeHostname={host} NodeAddr=127.0.0.1 Port={node0} CPUs=32 RealMemory=64000 Gres=gpu:4
NodeName={nodes[1]} NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=32 RealMemory=64000 Gres=gpu:4
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
GRES = "NodeName={nodes[0]},{nodes[1]} Name=gpu Count=4 File={folder}/gpu[0-3]\n"
ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdPort={slurmdbd}
SlurmUser={user}
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb}
StorageUser={user}
StoragePass=x
StorageLoc=slurm
"""
# The first start of a job waits to be interrupted.
SLEEPER = """
import os
import time

from attention_atlas.workflow.stage import stage

@stage("world")
def main(cfg, job):
    with open("started.txt", "a") as file:
        print(cfg.seed, file=file)
    while not os.environ.get("SLURM_RESTART_COUNT"):
        time.sleep(0.2)
    job.run.metrics({"restarts": int(os.environ["SLURM_RESTART_COUNT"])})

if __name__ == "__main__":
    main()
"""


def environment_of(slurm: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    return kept | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", **slurm}


def ask(slurm: dict[str, str], *words: str) -> str:
    """What a program of SLURM prints."""
    return subprocess.run(words, env=os.environ | slurm, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user of the cluster."""
    folder = tmp_path_factory.mktemp("slurm")
    names = ("slurmctld", "slurmdbd", "mariadb", "node0", "node1")
    values: dict[str, Any] = {name: free_port() for name in names}
    values |= {"host": socket.gethostname(), "user": getpass.getuser(), "folder": folder, "nodes": NODES}
    for name, text in (("slurm.conf", CONF), ("gres.conf", GRES), ("slurmdbd.conf", ACCOUNTING)):
        (folder / name).write_text(text.format(**values))
        (folder / name).chmod(0o600)
    (folder / "state").mkdir()
    for number in range(4):
        (folder / f"gpu{number}").touch()
    (folder / "key").write_bytes(os.urandom(128))
    (folder / "key").chmod(0o600)
    user = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}

    with ExitStack() as stack:

        def start(*words: str) -> None:
            log = stack.enter_context((folder / f"{words[0]}.log").open("a"))
            daemon = subprocess.Popen(words, env=os.environ | user, stdout=log, stderr=log)

            def stop() -> None:
                daemon.terminate()
                daemon.wait(60)

            stack.callback(stop)

        words = ("socket", "pid-file", "log-file", "seed-file")
        files = [f"--{word}={folder}/munge.{word}" for word in words]
        start("munged", "--foreground", "--force", f"--key-file={folder}/key", *files)
        data = ("--no-defaults", f"--user={values['user']}", f"--datadir={folder}/db")
        subprocess.run(["mariadb-install-db", *data], env=os.environ | user, stdout=subprocess.DEVNULL)
        where = (f"--port={values['mariadb']}", "--bind-address=127.0.0.1", f"--socket={folder}/db.socket")
        start("mariadbd", *data, *where, "--skip-grant-tables", f"--pid-file={folder}/db.pid")
        start("slurmdbd", "-D")
        add = ("sacctmgr", "-i", "add", "cluster", "test")
        wait_until(lambda: "test" in ask(user, *add), "slurmdbd did not start")
        start("slurmctld", "-D")
        for node in NODES:
            start("slurmd", "-D", "-N", node)
        wait_until(lambda: ask(user, "sinfo", "-h", "-o", "%t %D") == "idle 2", "the nodes did not start")
        yield user
        ask(user, "scancel", "--partition=gpu")
        wait_until(lambda: not ask(user, "squeue", "-h"), "the jobs did not end")


def test_one_command_runs_what_failed_on_slurm(project: Path, slurm: dict[str, str]) -> None:  # noqa: F811
    words = ("probe.py", "-m", "hydra/launcher=slurm", "hydra.launcher.partition=gpu", "seed=1,2,3,4")
    first = run(project, *words, **slurm)
    assert first.returncode == 1 and started(project) == [1, 2, 3, 4], first.stdout + first.stderr
    (folder,) = (project / "multirun").iterdir()
    name = folder.relative_to(project)
    assert sorted(first.stdout.splitlines()) == [
        f"failed: {name}/seed=2: words.csv: row 7: no text; correct it",
        f"failed: {name}/seed=3: ended without a result (killed, or out of memory or time); see its log",
        f"failed: {name}/seed=4: ZeroDivisionError: a defect",
    ]
    assert "Traceback" not in first.stderr
    (project / "mended").touch()
    second = run(project, *rest(first), **slurm)
    assert second.returncode == 0 and started(project) == [2, 3, 4], second.stdout + second.stderr


def test_a_job_that_slurm_interrupts_is_submitted_again(project: Path, slurm: dict[str, str]) -> None:  # noqa: F811
    """As it does before the time limit, SLURM sends SIGUSR2; submitit puts the job back into the queue."""
    from mlflow import MlflowClient

    (project / "sleeper.py").write_text(SLEEPER)
    environment = environment_of(slurm)
    command = [sys.executable, "sleeper.py", "-m", "hydra/launcher=slurm", "seed=1"]
    state = partial(ask, slurm, "squeue", "-h", "--name=sleeper", "-o", "%t")
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=project, env=environment, **pipes) as sweep:
        wait_until((project / "started.txt").exists, "the job did not start")
        job = ask(slurm, "squeue", "-h", "--name=sleeper", "-o", "%i")
        ask(slurm, "scancel", "--signal=USR2", job)
        wait_until(lambda: state() == "PD", "the job was not put back")
        ask(slurm, "scontrol", "update", f"JobId={job}", "StartTime=now")  # by default after two minutes
        out, err = sweep.communicate(timeout=300)
    assert sweep.returncode == 0, out + err
    assert started(project) == [1, 1]
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name(f"{EXPERIMENT}/{DATA}")
    found = {run.info.run_name: run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert found["sweep world: seed=1"] == "FINISHED"


def scripts() -> list[str]:
    """The batch scripts of docs/howto/cluster.md."""
    page = (ROOT / "docs/howto/cluster.md").read_text(encoding="utf-8")
    return re.findall(r"```bash\n(#!/bin/bash\n.*?)```", page, re.DOTALL)


def test_slurm_accepts_the_scripts_of_the_docs(tmp_path: Path, slurm: dict[str, str]) -> None:
    assert len(scripts()) == 2
    for script in scripts():
        (tmp_path / "job.sh").write_text(script)
        command = ["sbatch", "--test-only", str(tmp_path / "job.sh")]
        result = subprocess.run(command, env=os.environ | slurm, capture_output=True, text=True)
        assert result.returncode == 0 and "to start at" in result.stderr, result.stderr


def test_two_nodes_learn_what_one_process_learns(
    training_project: Path,  # noqa: F811
    slurm: dict[str, str],
) -> None:
    """The script of the docs, with a tiny model on the CPU."""
    import torch

    folder, environment = training_project, environment_of(slurm)
    words = ["script.py", "device.train=cpu", "workers=1"]
    subprocess.run([sys.executable, *words], cwd=folder, env=environment, check=True)
    alone = torch.load(folder / "data/weights.pt")
    (folder / "data/weights.pt").unlink()

    (folder / ".venv/bin").mkdir(parents=True)
    for name in ("python", "torchrun"):
        program = Path(sys.executable).with_name(name)
        (folder / ".venv/bin" / name).write_text(f'#!/bin/bash\nexec {program} "$@"\n')
        (folder / ".venv/bin" / name).chmod(0o755)
    (script,) = (text for text in scripts() if "torchrun" in text)
    script, replaced = re.subn(r"-m pipeline\.train .*", " ".join(words), script, flags=re.DOTALL)
    script = script.replace("--nproc-per-node=4", "--nproc-per-node=1")
    # The names of these nodes are not those of machines.
    script = script.replace("$host:29500", f"127.0.0.1:{free_port()}")
    assert replaced == 1
    (folder / "job.sh").write_text(script + "\n")
    command = ["sbatch", "--wait", "--output=job.log", "job.sh"]
    result = subprocess.run(command, cwd=folder, env=environment | {"ATLAS": str(folder)}, timeout=300)
    log = (folder / "job.log").read_text()
    assert result.returncode == 0, log
    together = torch.load(folder / "data/weights.pt")
    assert all(torch.equal(alone[name], together[name]) for name in alone), log
    account = partial(ask, slurm, "sacct", "-n", "-X", "-P", "-o", "nnodes,state", "--name=job.sh")
    wait_until(lambda: account() == "2|COMPLETED", "SLURM did not record two nodes", seconds=60)
