"""`torchrun` and `accelerate launch` around a training script: the weights of one process, one MLflow run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.errors import ConfigError
from attention_atlas.training.processes import process_count
from attention_atlas.training.shared import accelerator_on
from attention_atlas.workflow.tracking import DATA, EXPERIMENT

# The script `train` with the model and task of test_training_processes.py.
SCRIPT = """
import torch
from test_training_processes import learn

from attention_atlas.training.processes import process_count, processes
from attention_atlas.workflow.ranks import follows
from attention_atlas.workflow.stage import stage

@stage("train")
def main(cfg, job):
    count = process_count(2, job.device, cfg.workers, cfg.gpus)
    with processes(count, job.device) as together:
        own = {} if follows() else {"here": True}
        weights, history = together(learn, {"work": job.work()}, own)
    if not follows():
        torch.save(weights, job.out("data/weights.pt"))
    job.run.metrics({"loss": history[-1]["loss"]})

if __name__ == "__main__":
    main()
"""
CONFIG = """
# @package _global_
defaults: [/config, /params, _self_]
gpus: 1
hydra: {searchpath: ["file://."]}
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/stage/train.yaml").write_text(CONFIG)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "script.py").write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    return tmp_path


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment |= {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ACCELERATE = (
    *("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--num_machines=1"),
    *("--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0"),
)


@pytest.mark.slow
def test_launched_processes_learn_what_one_learns_in_one_run(project: Path) -> None:
    import torch
    from mlflow import MlflowClient

    weights: list[Any] = []
    for launcher in ((), TORCHRUN, ACCELERATE):
        result = run(project, *launcher, "script.py", "device.train=cpu", "workers=1")
        assert result.returncode == 0, result.stderr
        weights.append(torch.load(project / "data/weights.pt"))
        (project / "data/weights.pt").unlink()
        assert not [path for path in (project / ".work/train").iterdir()], "its work is removed"
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in weights[0])
    client = MlflowClient(f"sqlite:///{project / 'mlflow.db'}")
    experiment: Any = client.get_experiment_by_name(f"{EXPERIMENT}/{DATA}")
    found = client.search_runs([experiment.experiment_id])
    assert len(found) == 3 and all("loss" in r.data.metrics for r in found)


def test_what_several_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from attention_atlas.workflow.ranks import check_launched, follows, launched

    monkeypatch.setenv("WORLD_SIZE", "2")  # not ours: some schedulers set it
    assert launched() == 0 and not follows() and process_count(2, "cpu", workers=1) == 1
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("RANK", "1")
    assert launched() == 2 and follows() and process_count(4, "cpu", workers=1) == 2
    with pytest.raises(ConfigError, match=r"an update has 3 batches to share; set train.loop.accumulate"):
        process_count(3, "cpu")
    check_launched("train", in_sweep=False)
    with pytest.raises(ConfigError, match="launch one training without -m"):
        check_launched("train", in_sweep=True)
    with pytest.raises(ConfigError, match=r"only pipeline.train runs in several"):
        check_launched("dump", in_sweep=False)


def test_gpus_of_one_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert process_count(4, "cuda:0") == 1
    assert process_count(4, "cuda:0", gpus=2) == 2
    assert process_count(4, "cuda:0", gpus=0) == 4
    for wanted, device, accumulate, reason in (
        (8, "cuda:0", 8, "this machine has 4"),
        (2, "cuda:1", 2, "a single GPU"),
        (4, "cuda:0", 2, "an update has 2 batches"),
        (2, "cpu", 2, "the device is cpu"),
    ):
        with pytest.raises(ConfigError, match=reason):
            process_count(accumulate, device, gpus=wanted)


def test_sharding_by_accelerate_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match=r"use_fsdp: is not supported; .* train.loop.shard=true"):
        accelerator_on("cpu", "no")
