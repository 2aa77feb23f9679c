"""MLflow: no run is lost, in sweeps on a fresh store and in DVC's temporary copies."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.tracking import EXPERIMENT, _short, flatten, stage_run, store_root, tracking_uri

PROBE = """
from attention_atlas.stage import stage

@stage("world")
def main(cfg, stage):
    stage.run.metrics({"seed squared": cfg.seed**2, "undefined": float("nan")})

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

    from attention_atlas.tracking import stage_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with stage_run(tmp_path, "probe", {"sets": {"DET+ADJ": 1}}, {"stage": "probe"}) as run:
        run.metrics({"mAP@36 all": 0.5, "undefined": float("nan")})
    stored = MlflowClient(f"sqlite:///{tmp_path}/store.db").get_run(run.run_id)
    assert stored.data.metrics == {"mAP_36 all": 0.5}
    assert stored.data.params["sets.DET_ADJ"] == "1"


def test_a_store_that_a_kill_left_half_made_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    from attention_atlas.tracking import stage_run

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with sqlite3.connect(tmp_path / "store.db.new") as half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with stage_run(tmp_path, "probe", {}, {"stage": "probe"}) as run:
        run.metrics({"m": 1.0})
    assert MlflowClient(f"sqlite:///{tmp_path}/store.db").get_run(run.run_id).data.metrics == {"m": 1.0}
    assert not (tmp_path / "store.db.new").exists()
