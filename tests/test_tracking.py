"""MLflow: no run is lost, in sweeps on a fresh store and in DVC's temporary copies."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.errors import AtlasError
from attention_atlas.workflow.tracking import _short, flatten, stage_run, start_writer
from attention_atlas.workflow.tracking_store import EXPERIMENT, SOCKET_VARIABLE, store_root, tracking_uri

PROBE = """
from attention_atlas.workflow.stage import stage

@stage("world")
def main(cfg, job):
    job.run.metrics({"seed squared": cfg.seed**2, "undefined": float("nan")})

if __name__ == "__main__":
    main()
"""


def runs(uri: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))


def test_store_is_that_of_the_repository_also_in_dvc_temporary_copies(tmp_path: Path) -> None:
    temporary = tmp_path / ".dvc" / "tmp" / "exps" / "standalone" / "tmpabc"
    assert store_root(temporary) == tmp_path
    assert store_root(tmp_path) == tmp_path


def test_tracking_uri_of_the_user_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://server:5000")
    assert tracking_uri(tmp_path) == "http://server:5000"


def test_long_values_are_cut_with_their_digest() -> None:
    assert len(_short("x" * 10_000)) <= 6000 and _short("x" * 10_000) != _short("x" * 10_001)
    assert _short("short") == "short"


def test_flatten() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": [1], "f": {}}) == {
        "a.b": 1,
        "a.c.d": 2,
        "e": [1],
        "f": {},
    }


@pytest.mark.slow
def test_a_failed_stage_is_marked_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("ATLAS_PARENT_RUN", "")
    with pytest.raises(RuntimeError), stage_run(tmp_path, "boom", {"a": {"b": 1}}, {"stage": "x"}):
        raise RuntimeError
    with stage_run(tmp_path, "fine", {"a": {"b": 1}}, {"stage": "x"}) as run:
        run.metrics({"m": 2.0})
    found = {r.info.run_name: r for r in runs(tracking_uri(tmp_path))}
    assert found["boom"].info.status == "FAILED"
    assert found["fine"].info.status == "FINISHED"
    assert found["fine"].data.metrics == {"m": 2.0} and found["fine"].data.params == {"a.b": "1"}


SLEEPER = """
import sys, time
from pathlib import Path
from attention_atlas.workflow.tracking import stage_run, start_writer

with stage_run(Path(sys.argv[1]), "killed", {}, {"stage": "x"}) as run:
    print(start_writer().process, run.run_id, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_stages_share_one_mlflow_process_and_a_killed_one_is_marked_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr("attention_atlas.workflow.tracking._writer", None)
    monkeypatch.setenv("ATLAS_PARENT_RUN", "")
    path = str(tmp_path / "tracker")
    command = [sys.executable, "-m", "attention_atlas.workflow.tracking_store", path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as server:
        deadline = time.monotonic() + 60
        while not Path(path).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        monkeypatch.setenv(SOCKET_VARIABLE, path)
        with subprocess.Popen(
            [sys.executable, "-c", SLEEPER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as stage:
            assert stage.stdout is not None
            process, killed = stage.stdout.readline().split()
            assert process == "None"
            # Another stage at the same time.
            with stage_run(tmp_path, "fine", {"a": 1}, {"stage": "x"}) as run:
                assert start_writer().process is None
                run.metrics({"m": 2.0})
            stage.send_signal(signal.SIGKILL)
        assert server.stdin is not None
        server.stdin.close()
        assert server.wait(60) == 0
    monkeypatch.setattr("attention_atlas.workflow.tracking._writer", None)
    with stage_run(tmp_path, "afterwards", {}, {"stage": "x"}):
        assert start_writer().process is not None
    found = {r.info.run_name: r for r in runs(tracking_uri(tmp_path))}
    while found["killed"].info.status == "RUNNING" and time.monotonic() < deadline:
        time.sleep(0.1)
        found = {r.info.run_name: r for r in runs(tracking_uri(tmp_path))}
    assert {name: r.info.status for name, r in found.items()} == {
        "killed": "FAILED",
        "fine": "FINISHED",
        "afterwards": "FINISHED",
    }
    assert found["killed"].info.run_id == killed
    assert found["fine"].data.metrics == {"m": 2.0}


@pytest.mark.slow
def test_a_joblib_sweep_of_six_on_a_fresh_store_loses_no_run(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "probe.py").write_text(PROBE)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment["PYTHONPATH"] = str(ROOT / "src")
    command = ["probe.py", "-m", "hydra/launcher=joblib", "hydra.launcher.n_jobs=3", "seed=1,2,3,4,5,6"]
    result = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    found = runs(f"sqlite:///{tmp_path / 'mlflow.db'}")
    parents = [r for r in found if "atlas.session" in r.data.tags]
    children = [r for r in found if "atlas.session" not in r.data.tags]
    assert len(parents) == 1 and len(children) == 6
    assert {r.data.tags["mlflow.parentRunId"] for r in children} == {parents[0].info.run_id}
    assert sorted(r.data.metrics["seed squared"] for r in children) == [1, 4, 9, 16, 25, 36]
    assert all(r.info.status == "FINISHED" and "undefined" not in r.data.metrics for r in children)
    assert not (tmp_path / "data").exists(), "a sweep must not touch what DVC owns"


def test_names_mlflow_would_refuse_are_cleaned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    from attention_atlas.workflow.tracking import stage_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with stage_run(tmp_path, "probe", {"sets": {"DET+ADJ": 1}}, {"stage": "probe"}) as run:
        run.metrics({"mAP@36 all": 0.5, "undefined": float("nan")})
    stored = MlflowClient(f"sqlite:///{tmp_path}/store.db").get_run(run.run_id)
    assert stored.data.metrics == {"mAP_36 all": 0.5}
    assert stored.data.params["sets.DET_ADJ"] == "1"


def test_a_store_left_incomplete_by_a_kill_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from attention_atlas.workflow.tracking import stage_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with sqlite3.connect(tmp_path / "store.db.new") as half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with stage_run(tmp_path, "probe", {}, {"stage": "probe"}) as run:
        run.metrics({"m": 1.0})
    assert MlflowClient(f"sqlite:///{tmp_path}/store.db").get_run(run.run_id).data.metrics == {"m": 1.0}
    assert not (tmp_path / "store.db.new").exists()


@pytest.mark.slow
def test_runs_nest_and_a_killed_stage_is_marked_failed(tmp_path: Path) -> None:
    """Three runs in one process: two inside the first. Killed, the one that is still open is FAILED."""
    code = """
import os, signal
from pathlib import Path
from attention_atlas.workflow.tracking import PARENT_VARIABLE, stage_run
with stage_run(Path.cwd(), "outer", {}, {}) as outer:
    os.environ[PARENT_VARIABLE] = outer.run_id
    for k in range(2):
        with stage_run(Path.cwd(), f"inner {k}", {"k": k}, {}) as inner:
            inner.metrics({"k": k})
    outer.metrics({"k": 9})
    outer._writer.process.stdin.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=120)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(100):
        found = {r.info.run_name: r for r in runs(uri)} if (tmp_path / "mlflow.db").exists() else {}
        if found and found["outer"].info.status != "RUNNING":
            break
        time.sleep(0.2)
    assert found["outer"].info.status == "FAILED" and found["outer"].data.metrics == {"k": 9.0}
    for k in range(2):
        inner = found[f"inner {k}"]
        assert inner.info.status == "FINISHED" and inner.data.metrics == {"k": float(k)}
        assert inner.data.tags["mlflow.parentRunId"] == found["outer"].info.run_id


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "store.db").write_text("no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with pytest.raises(AtlasError, match="MLflow cannot write there"), stage_run(tmp_path, "x", {}, {}):
        pass
    with pytest.raises(RuntimeError, match="mine"), stage_run(tmp_path, "x", {}, {}):
        raise RuntimeError("mine")
