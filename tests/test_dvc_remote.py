"""DVC remotes as docs/howto/remote.md describes them: push in one clone, pull in another, nothing to run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

STAGES = {
    "world": {"cmd": "mkdir world && echo image > world/a.png", "outs": ["world"]},
    "train": {"cmd": "cat world/a.png > model; echo ran >> ran.txt", "deps": ["world"], "outs": ["model"]},
}
KEYS = {
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def run(folder: Path, *command: str) -> str:
    environment = {**os.environ, **KEYS, "DVC_NO_ANALYTICS": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    return result.stdout + result.stderr


def dvc(folder: Path, *words: str) -> str:
    return run(folder, sys.executable, "-m", "dvc", *words)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A repository whose two stages have run."""
    folder = tmp_path / "first"
    folder.mkdir()
    run(folder, "git", "init", "-q")
    dvc(folder, "init", "-q")
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    dvc(folder, "repro", "-q")
    return folder


def push_and_pull(first: Path, second: Path, url: str, endpoint: str = "") -> None:
    dvc(first, "remote", "add", "-d", "storage", url)
    if endpoint:
        dvc(first, "remote", "modify", "storage", "endpointurl", endpoint)
    assert "pushed" in dvc(first, "push")
    (first / ".gitignore").open("a").write("/ran.txt\n")
    run(first, "git", "add", ".")
    run(first, "git", "-c", "user.name=a", "-c", "user.email=b", "commit", "-q", "-m", "results")
    run(first.parent, "git", "clone", "-q", str(first), str(second))
    assert not (second / "model").exists()
    dvc(second, "pull")
    assert (second / "model").read_text() == "image\n" and (second / "world/a.png").exists()
    assert "up to date" in dvc(second, "repro")
    assert not (second / "ran.txt").exists(), "a stage ran although its result was pulled"


def test_a_folder_as_remote(first: Path, tmp_path: Path) -> None:
    push_and_pull(first, tmp_path / "second", str(tmp_path / "storage"))


@pytest.fixture
def s3() -> Iterator[str]:
    """The address of an S3 server on this machine, with a bucket."""
    if find_spec("dvc_s3") is None or find_spec("moto") is None or find_spec("flask") is None:
        pytest.skip('needs pip install ".[s3]" "moto[server]"')
    start = (
        "import sys, boto3, threading\n"
        "from moto.server import ThreadedMotoServer\n"
        "server = ThreadedMotoServer('127.0.0.1', 0, verbose=False); server.start()\n"
        "address = 'http://%s:%d' % server.get_host_and_port()\n"
        "boto3.client('s3', endpoint_url=address).create_bucket(Bucket='atlas')\n"
        "print(address, flush=True); sys.stdin.read(); server.stop()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", start],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **KEYS},
    ) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        assert address.startswith("http"), "moto did not start"
        yield address
        server.kill()


@pytest.mark.slow
def test_s3_as_remote(first: Path, tmp_path: Path, s3: str) -> None:
    push_and_pull(first, tmp_path / "second", "s3://atlas/results", s3)
    shutil.rmtree(tmp_path / "second")
