"""A real `mlflow server` over HTTP, with SQLite and with PostgreSQL: 16 jobs at a time, and a server that is
killed and started again: no run is lost, and no stage fails."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

from attention_atlas.workflow.tracking_runs import kept

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow server")]
JOBS = 16
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
JOB = """
import sys
from pathlib import Path
from attention_atlas.workflow.tracking import stage_run

Path("image.png").write_text("an image")
for number in sys.argv[1:]:
    with stage_run(Path.cwd(), f"job {number}", {"number": number}, {"study": "probe"}) as run:
        run.metrics({"number": int(number)})
        run.artifact("image.png")
    Path(f"done_{number}").touch()
"""


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def mlflow_server(folder: Path, store: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server with one worker; it and its workers are killed at the end."""
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    words += ["--backend-store-uri", store, "--artifacts-destination", str(folder / "artifacts")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
    with (folder / "server.log").open("ab") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            cwd=folder,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}"), (folder / "server.log").read_text())
        yield server
    finally:
        kill(server)


def kill(server: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'server.db'}"
        return
    if not POSTGRES or find_spec("psycopg2") is None:
        pytest.skip('needs Debian\'s package postgresql and pip install ".[postgresql]"')
    programs, port = POSTGRES[-1].parent, free_port()
    folder = Path(tempfile.mkdtemp(prefix="atlas-pg-", dir="/tmp"))  # its user must be able to reach it
    options: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.STDOUT}
    if os.getuid() == 0:  # PostgreSQL refuses root
        user = pwd.getpwnam("nobody")
        shutil.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = str(folder / "data")
    initdb = [str(programs / "initdb"), "-D", data, "-U", "atlas", "--auth=trust", "--no-sync"]
    subprocess.run(initdb, check=True, **options)
    words = ["-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", str(folder), "-F"]
    server = subprocess.Popen([str(programs / "postgres"), *words], **options)
    try:
        ready = [str(programs / "pg_isready"), "-h", "127.0.0.1", "-p", str(port), "-q"]
        wait_until(lambda: subprocess.run(ready).returncode == 0, "postgres did not start")
        yield f"postgresql+psycopg2://atlas@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGQUIT)
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def start_job(folder: Path, url: str, *numbers: int) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": url}
    environment |= {"ATLAS_SESSION": "1-1 sixteen jobs"}
    return subprocess.Popen(
        [sys.executable, "-c", JOB, *map(str, numbers)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_jobs(url: str, count: int) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(url)
    experiment = client.get_experiment_by_name("attention-atlas/probe")
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in found if "atlas.session" in r.data.tags]
    jobs = [r for r in found if "atlas.session" not in r.data.tags]
    assert len(parents) == 1 and len(jobs) == count
    assert sorted(r.data.metrics["number"] for r in jobs) == list(range(count))
    assert {r.data.tags["mlflow.parentRunId"] for r in jobs} == {parents[0].info.run_id}
    assert {r.info.status for r in jobs} == {"FINISHED"}
    assert [a.path for a in client.list_artifacts(jobs[0].info.run_id)] == ["image.png"]


def test_sixteen_jobs_at_a_time_lose_no_run(store: str, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with mlflow_server(tmp_path, store, port):
        # 16 processes, 4 of them at a time talk to the server.
        with ThreadPoolExecutor(4) as pool:
            ended = list(pool.map(lambda n: finished(start_job(tmp_path, url, n)), range(JOBS)))
        assert [code for code, _, _ in ended] == [0] * JOBS
        # A job that waited too long for a busy server is kept, and a later one hands it over.
        hand_over(tmp_path, url)
        check_jobs(url, JOBS)
    assert kept(tmp_path) == []


def finished(job: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = job.communicate()
    return job.returncode, out, err


def hand_over(folder: Path, url: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": url}
    command = [sys.executable, "-m", "attention_atlas", "track"]
    subprocess.run(command, cwd=folder, env=environment, check=True)


def test_a_server_killed_and_started_again_in_a_sweep_loses_no_run(tmp_path: Path) -> None:
    port, count = free_port(), 6
    url, store = f"http://127.0.0.1:{port}", f"sqlite:///{tmp_path / 'server.db'}"
    with mlflow_server(tmp_path, store, port) as server:
        job = start_job(tmp_path, url, *range(count))
        wait_until((tmp_path / "done_1").exists, "no job ended")
        kill(server)
        wait_until((tmp_path / "done_4").exists, "the jobs wait for the server")
    with mlflow_server(tmp_path, store, port):
        code, out, err = finished(job)
        assert code == 0 and out == "", "MLflow prints nothing on the output of a stage"
        notes = err.splitlines()
        assert notes and all(line.startswith("note: MLflow at http://127.0.0.1") for line in notes), err
        hand_over(tmp_path, url)
        check_jobs(url, count)
    assert kept(tmp_path) == []


def test_a_server_that_does_not_answer_costs_seconds(tmp_path: Path) -> None:
    """It accepts connections and says nothing."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(64)
        start = time.monotonic()
        job = start_job(tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", 0, 1, 2)
        code, _, err = finished(job)
    assert code == 0 and len(err.splitlines()) == 3 and len(kept(tmp_path)) == 3
    assert time.monotonic() - start < 180, "each run waited for the server"
