"""MLflow: no run is lost, in sweeps on a fresh store, in DVC's temporary copies and without a server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.workflow.tracking import (
    EXPERIMENT,
    SOCKET_VARIABLE,
    _short,
    flatten,
    stage_run,
    start_writer,
)
from attention_atlas.workflow.tracking_runs import claimed, kept, records_folder, store_root, tracking_uri

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
    ours = [e.experiment_id for e in client.search_experiments() if e.name.startswith(EXPERIMENT)]
    return list(client.search_runs(ours, max_results=1000))


@pytest.fixture(autouse=True)
def no_writer(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Each test has its own writer, which has ended afterwards."""
    for name in ("MLFLOW_TRACKING_URI", "ATLAS_PARENT_RUN", "ATLAS_SESSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("attention_atlas.workflow.tracking._writer", None)
    yield
    from attention_atlas.workflow import tracking

    if tracking._writer is not None:
        tracking._writer.stop()


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
def test_a_failed_stage_is_marked_failed(tmp_path: Path) -> None:
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
    print(start_writer().process, run.key, flush=True)
    time.sleep(600)
"""


@pytest.mark.slow
def test_stages_share_one_mlflow_process_and_a_killed_one_is_marked_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "tracker")
    command = [sys.executable, "-m", "attention_atlas.workflow.tracking_writer", path]
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
    assert found["killed"].data.tags["atlas.run"] == killed
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
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with stage_run(tmp_path, "probe", {"sets": {"DET+ADJ": 1}}, {"stage": "probe"}) as run:
        run.metrics({"mAP@36 all": 0.5, "undefined": float("nan")})
    (stored,) = runs(f"sqlite:///{tmp_path}/store.db")
    assert stored.data.metrics == {"mAP_36 all": 0.5}
    assert stored.data.params["sets.DET_ADJ"] == "1"


def test_a_store_left_incomplete_by_a_kill_is_recreated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with sqlite3.connect(tmp_path / "store.db.new") as half:
        half.execute("CREATE TABLE experiments (experiment_id INTEGER)")
    with stage_run(tmp_path, "probe", {}, {"stage": "probe"}) as run:
        run.metrics({"m": 1.0})
    (stored,) = runs(f"sqlite:///{tmp_path}/store.db")
    assert stored.data.metrics == {"m": 1.0}
    assert not (tmp_path / "store.db.new").exists()


@pytest.mark.slow
def test_runs_nest_and_a_killed_stage_is_marked_failed(tmp_path: Path) -> None:
    """Three runs in one process: two inside the first. Killed, the one that is still open is FAILED."""
    code = """
import os, signal
from pathlib import Path
from attention_atlas.workflow.tracking import PARENT_VARIABLE, stage_run
with stage_run(Path.cwd(), "outer", {}, {}) as outer:
    os.environ[PARENT_VARIABLE] = outer.key
    for k in range(2):
        with stage_run(Path.cwd(), f"inner {k}", {"k": k}, {}) as inner:
            inner.metrics({"k": k})
    outer.metrics({"k": 9})
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, timeout=120)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for _ in range(600):  # a busy machine
        found = {r.info.run_name: r for r in runs(uri)} if (tmp_path / "mlflow.db").exists() else {}
        if len(found) == 3 and all(r.info.status != "RUNNING" for r in found.values()):
            break
        time.sleep(0.2)
    assert found["outer"].info.status == "FAILED" and found["outer"].data.metrics == {"k": 9.0}
    for k in range(2):
        inner = found[f"inner {k}"]
        assert inner.info.status == "FINISHED" and inner.data.metrics == {"k": float(k)}
        assert inner.data.tags["mlflow.parentRunId"] == found["outer"].info.run_id


def test_a_store_that_cannot_be_written_does_not_stop_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "store.db").write_text("no database " * 100)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with stage_run(tmp_path, "x", {}, {}) as run:
        run.metrics({"m": 1.0})
    with pytest.raises(RuntimeError, match="mine"), stage_run(tmp_path, "x", {}, {}):
        raise RuntimeError("mine")
    first, second = capsys.readouterr().err.splitlines()
    assert "store.db did not record this run (" in first and "attention-atlas track" in first
    assert second.startswith("note: ")
    # The store is there again: the next stage hands both over.
    (tmp_path / "store.db").unlink()
    with stage_run(tmp_path, "y", {}, {}):
        pass
    assert capsys.readouterr().err == "" and kept(tmp_path) == []
    found = {(r.info.run_name, r.info.status): r for r in runs(f"sqlite:///{tmp_path}/store.db")}
    assert set(found) == {("x", "FINISHED"), ("x", "FAILED"), ("y", "FINISHED")}
    assert found["x", "FINISHED"].data.metrics == {"m": 1.0}


def test_an_error_in_the_database_is_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """MLflow itself logs the traceback of an OperationalError, such as that of a full disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/store.db")
    with stage_run(tmp_path, "x", {}, {}):
        pass
    with sqlite3.connect(tmp_path / "store.db") as store:
        store.execute("ALTER TABLE runs RENAME TO gone")
    with stage_run(tmp_path, "y", {}, {}):
        pass
    (line,) = capfd.readouterr().err.splitlines()
    assert "did not record this run (" in line and "no such table" in line


def test_a_record_that_cannot_be_written_does_not_stop_a_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".work").write_text("no folder")
    with stage_run(tmp_path, "x", {}, {}) as run:
        run.metrics({"m": 1.0})
    (line,) = capsys.readouterr().err.splitlines()
    assert "did not record this run (it cannot be kept either" in line


def test_a_writer_that_dies_or_talks_does_not_stop_a_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    start = subprocess.Popen
    for program in ("raise SystemExit(3)", "print('View run at http://server', flush=True); input()"):
        fake = partial(start, [sys.executable, "-c", program])
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", lambda command, fake=fake, **options: fake(**options))
            patch.setattr("attention_atlas.workflow.tracking.source_tags", lambda root: {})
            with stage_run(tmp_path, "x", {}, {}) as run:
                run.artifact(__file__)
        assert "its process ended" in capsys.readouterr().err
    assert len(kept(tmp_path)) == 2
    copies = [p for p in records_folder(tmp_path).rglob(Path(__file__).name)]
    assert len(copies) == 2, "a figure is kept with its record"


def test_a_record_is_handed_over_once_and_not_while_its_stage_lives(tmp_path: Path) -> None:
    from attention_atlas.workflow.tracking_runs import Record

    record = Record(tmp_path, "1-a")
    record.write("open")
    with claimed(record.folder) as mine:
        assert not mine
    record.release()
    with claimed(record.folder) as mine, claimed(record.folder) as also:
        assert mine and not also
    record.remove()
    with claimed(record.folder) as mine:
        assert not mine


def test_a_record_on_nfs_is_claimed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There only a file that is open for writing can be locked."""
    import fcntl

    from attention_atlas.workflow.tracking_runs import Record

    lock = fcntl.flock

    def on_nfs(file: Any, how: int) -> None:
        if not file.writable():
            raise OSError(9, "Bad file descriptor")
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", on_nfs)
    record = Record(tmp_path, "1-a")
    record.write("open")
    record.release()
    with claimed(record.folder) as mine:
        assert mine


def test_what_mlflow_refuses_is_left_out_and_noted(tmp_path: Path) -> None:
    with stage_run(tmp_path, "x", {"a": 1}, {}) as run:
        run.params({"a": 2})  # MLflow keeps the first value
        run.artifact(tmp_path / "gone.png")
        run.metrics({"m": 1.0})
    (found,) = runs(tracking_uri(tmp_path))
    assert found.data.metrics == {"m": 1.0} and found.info.status == "FINISHED"
    assert "gone.png" in found.data.tags["atlas.refused"] and kept(tmp_path) == []


def test_sending_twice_changes_nothing(tmp_path: Path) -> None:
    """As after a kill between the last line and the removal of the record."""
    from attention_atlas.workflow.tracking_delivery import Delivery
    from attention_atlas.workflow.tracking_runs import Record
    from attention_atlas.workflow.tracking_store import Store

    record = Record(tmp_path, "1-a")
    record.write(
        "open",
        key="1-a",
        experiment=EXPERIMENT,
        name="x",
        time=1000,
        tags={},
        parent=None,
        session=("s-1", "reproduce mini"),
    )
    record.write("params", values={"a": "1"})
    record.write("metrics", values={"m": 1.0}, step=1, time=2000)
    record.write("input", path="data/x", digest="abc")
    record.write("model", name="mac", params={"seed": "0"}, path="data/models/mac")
    record.write("close", status="FINISHED", time=5000)
    record.release()
    uri = tracking_uri(tmp_path)
    for _ in range(2):
        Delivery(Store(tmp_path, uri), record.folder).finish()
    found = {r.info.run_name: r for r in runs(uri)}
    assert set(found) == {"x", "reproduce mini"}
    run, parent = found["x"], found["reproduce mini"]
    assert run.info.end_time - run.info.start_time == 4000
    assert len(run.inputs.dataset_inputs) == 1 and len(run.outputs.model_outputs) == 1
    assert (parent.info.start_time, parent.info.end_time, parent.info.status) == (1000, 5000, "FINISHED")


def test_two_processes_that_send_the_same_run_create_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer of a killed stage, and the next stage, which hands its record over."""
    from mlflow import MlflowClient

    from attention_atlas.workflow.tracking_store import Store

    stores = [Store(tmp_path, tracking_uri(tmp_path)) for _ in range(2)]
    (experiment,) = {store.experiment(EXPERIMENT) for store in stores}
    both, search = threading.Barrier(2), MlflowClient.search_runs

    def slow(*arguments: Any, **options: Any) -> Any:
        found = search(*arguments, **options)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(timeout=1)  # until the other has looked as well, if it may
        return found

    monkeypatch.setattr(MlflowClient, "search_runs", slow)
    with ThreadPoolExecutor() as threads:
        sent = [threads.submit(store.run, experiment, "1-a", "x", 1000, {}) for store in stores]
    assert len({run.result() for run in sent}) == 1


def test_a_line_that_a_full_disk_cut_is_left_out(tmp_path: Path) -> None:
    from attention_atlas.workflow.tracking_delivery import _order

    assert _order(b'{"do": "metr\n') is None and _order(b"7\n") is None


@pytest.mark.slow
def test_runs_look_as_a_person_expects_in_the_ui(tmp_path: Path) -> None:
    """Experiment, name, source, data set, model, duration, parent with its summary."""
    from mlflow import MlflowClient

    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "probe.py").write_text(UI_PROBE)
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=b", *COMMIT]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "ATLAS_SESSION": "1-1 reproduce mini"}
    words = ["study=alignment", "model=mac", "data=tabletop_questions", "alignment=dot"]
    command = [sys.executable, "pipeline/probe.py", *words, "trainer=every_alignment"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0 and result.stderr == "", result.stderr
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("attention-atlas/alignment")
    assert experiment.tags["mlflow.experimentKind"] == "custom_model_development"
    found = {r.info.run_name: r for r in runs(uri)}
    assert set(found) == {"train MAC on tabletop_questions, dot, seed 0", "reproduce mini"}
    run, parent = found["train MAC on tabletop_questions, dot, seed 0"], found["reproduce mini"]
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    params = run.data.params
    assert [params[k] for k in ("model", "data", "alignment", "seed")] == [
        "mac",
        "tabletop_questions",
        "dot",
        "0",
    ]
    tags = run.data.tags
    assert tags["mlflow.source.name"] == "pipeline/probe.py" and len(tags["mlflow.source.git.commit"]) == 40
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("images", "abc")
    (model,) = run.outputs.model_outputs
    assert client.get_logged_model(model.model_id).name == "mac"
    assert run.info.end_time - run.info.start_time >= 1500, "the time that the stage worked"
    assert parent.info.end_time >= run.info.end_time - 1 and parent.info.start_time <= run.info.start_time
    assert parent.data.metrics == {"accuracy": 96.0}
    assert [a.path for a in client.list_artifacts(run.info.run_id)] == ["figure.png"]


COMMIT = ("commit", "-q", "-m", "c")
UI_PROBE = """
from attention_atlas.workflow.stage import stage

@stage("train")
def main(cfg, job):
    import time
    from pathlib import Path

    time.sleep(1.5)
    Path("figure.png").write_text("an image")
    job.run.input("images", "abc")
    job.run.model(cfg.model.name, {"seed": cfg.seed}, "data/models/mac")
    job.run.artifact("figure.png")
    job.run.summary("alignment", {"accuracy": 96.0})

if __name__ == "__main__":
    main()
"""


@pytest.mark.parametrize(
    ("choices", "title"),
    [
        ({"figure": "grounding", "study": "grounding"}, "plot grounding"),
        ({"figure": "learning", "study": "grounding"}, "plot learning of grounding"),
        ({"figure": "learning"}, "plot learning of data"),
        ({"model": "lstm", "data": "rooms", "study": "grounding"}, "plot lstm on rooms"),
    ],
)
def test_a_title_says_each_thing_once(choices: dict[str, str], title: str) -> None:
    from omegaconf import OmegaConf

    from attention_atlas.workflow.tracking_title import described

    assert described("plot", OmegaConf.create({"seed": 0}), choices, None)[0] == title
