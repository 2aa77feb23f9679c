"""Stages on bad command lines, places and disks: one line, exit code 1 or 2; a stage whose DVC is killed."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from test_bad_input_commands import obey_permissions
from test_stage import only_line, project, run  # noqa: F401  (a fixture)

from attention_atlas.errors import AtlasError
from attention_atlas.files import hdf5_file, write_text
from attention_atlas.workflow.tracking_runs import tracking_uri


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("data.root=./epoch=3", "\"data.root='./epoch=3'\""),
        ("data.root=./a,b", "\"data.root='./a,b'\""),
        ("data.root=./a#b", "\"data.root='./a#b'\""),
        ("data.root=./it's", "\"data.root='./it\\'s'\""),
        ("data.root=./a(b)", "put it in quotation marks"),
        ("data.root=./{x}", "put it in quotation marks"),
        ("data=rooms data.root=/x", "put it in quotation marks"),
        ("=3", "has no name before '='"),
        ("seed=abc", "seed: Value 'abc'"),
        ("seed=1.5", "seed: Value '1.5'"),
        ("seed=", "seed: Value ''"),
        ("seed=-1", "seed: -1 is not within 0..4294967295"),
        (f"seed={2**40}", "is not within 0..4294967295"),
        ("workers=many", "workers: Value 'many'"),
        ("workers=-2", "workers: -2 is not within"),
        ("effort=abc", "effort: Value 'abc'"),
        ("limit=3", "limit: "),
    ],
)
def test_a_wrong_word_is_one_line(project: Path, word: str, says: str) -> None:  # noqa: F811
    assert says in only_line(run(project, word), 2)


@pytest.mark.parametrize("name", ["a=b,c#d (é) it\\'s"])
def test_a_quoted_value_is_read(project: Path, name: str) -> None:  # noqa: F811
    assert "ran with seed" in run(project, f"data.root='{name}'").stdout


@pytest.mark.parametrize("name", ["plain", "a b", "é", "a%20b", "100% done", "a?b", "a#b", "a&b=c", "项目"])
def test_the_store_lies_in_the_repository_whatever_its_name(name: str, tmp_path: Path, monkeypatch) -> None:
    import sqlalchemy

    from attention_atlas.workflow.tracking_store import _client

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / name).mkdir()
    engine = sqlalchemy.create_engine(tracking_uri(tmp_path / name))
    assert engine.url.database == str(tmp_path / name / "mlflow.db")
    if name in ("a%20b", "a?b"):
        assert _client(tracking_uri(tmp_path / name)).search_experiments()
        assert [p.name for p in (tmp_path / name).iterdir()] == ["mlflow.db"]
        assert [p.name for p in tmp_path.iterdir()] == [name], "MLflow made a folder of the quoted name"


WRITERS: dict[str, str] = {
    "text": "from attention_atlas.files import write_text; write_text('out', 'x' * 10**6)",
    "rows": "from attention_atlas.files import write_jsonl; write_jsonl('out', [{'a': 'x' * 999}] * 999)",
    "npz": "import numpy as np; from attention_atlas.files import atomic_path\n"
    "with atomic_path('out.npz') as p: np.savez(p, a=np.random.rand(10**6))",
    "torch": "import torch; from attention_atlas.files import atomic_path\n"
    "with atomic_path('out.pt') as p, p.open('wb') as f: torch.save(torch.rand(10**6), f)",
    "safetensors": "import torch; from safetensors.torch import save_file\n"
    "from attention_atlas.files import atomic_path\n"
    "with atomic_path('out.safetensors') as p: save_file({'a': torch.rand(10**6)}, p)",
    "figure": "import numpy as np; from PIL import Image; from attention_atlas.files import atomic_path\n"
    "with atomic_path('out.png') as p: Image.fromarray(np.random.bytes(10**6)).save(p) if 0 else "
    "Image.frombytes('RGB', (999, 333), np.random.bytes(999 * 999)).save(p)",
    "attention": "from test_store_files import AttentionWriter, IDENTITY, example\n"
    "with AttentionWriter('out.h5', **IDENTITY) as w:\n"
    "    for i in range(30): w.write(f'id {i}', *example(i, words=30, regions=36))",
    "features": "import numpy as np; from attention_atlas.regions.features_file import FeaturesWriter\n"
    "with FeaturesWriter('out.h5', dim=64, regions=36, labels=[], source='x') as w:\n"
    "    for i in range(300): w.add(str(i), features=np.random.rand(36, 64), "
    "boxes=[[0, 0, 9, 9]] * 36, size=(9, 9))",
}
FRAME = """
import sys
from attention_atlas.errors import AtlasError
try:
{}
except AtlasError as error:
    print("error:", error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.mark.parametrize("place", ["full", "closed"])
@pytest.mark.parametrize("name", WRITERS)
def test_a_full_or_closed_disk_is_one_line_and_leaves_nothing(name: str, place: str, tmp_path: Path) -> None:
    def limited() -> None:
        if place == "full":
            resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, 150_000))
        else:
            obey_permissions()

    code = FRAME.format("\n".join(f"    {line}" for line in WRITERS[name].splitlines()))
    if place == "closed":
        tmp_path.chmod(0o555)
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    tmp_path.chmod(0o755)
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 1 and len(lines) == 1, done.stderr
    assert "out" in lines[0] and (
        "space and" in lines[0] or "free some space" in lines[0] or "permission" in lines[0]
    )
    assert not [p for p in tmp_path.iterdir() if p.name != "out.h5.part"]


def test_hdf5_of_every_size_survives_a_full_disk(tmp_path: Path) -> None:
    """Otherwise the process ends with a segmentation fault, when the file is closed or at exit."""
    code = (
        "import resource, sys, numpy as np\n"
        "from attention_atlas.files import hdf5_file\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)\n"
        "try:\n"
        "    with hdf5_file('x.h5') as (file, check):\n"
        "        for i in range(300):\n"
        "            file.create_dataset(f'g{i}/a', data=np.random.rand(10, 10, 9), chunks=(1, 10, 9))\n"
        "except OSError as error: print(error.errno)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    for limit in (100, 3000, 400_000):
        command = [sys.executable, "-c", code, str(limit)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stdout) == (0, "27\n"), done.stderr
    with hdf5_file(tmp_path / "fine.h5") as (file, check):
        file["a"] = [1, 2, 3]
        check()
    import h5py

    with h5py.File(tmp_path / "fine.h5") as file:
        assert file["a"][()].tolist() == [1, 2, 3]


def test_what_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(AtlasError, match=r"file/out.json: .*choose another place"):
        write_text(tmp_path / "file" / "out.json", "x")
    assert (tmp_path / "file").read_text() == "x"


STAGE = """
import sys, time
from attention_atlas.workflow.stage import stage

@stage("world")
def main(cfg, job):
    work = job.work()
    (work / "begun").touch()
    for n in range(200):
        if (work / f"{n}").exists(): continue
        (work / f"{n}").touch()
        time.sleep(float(sys.argv[1:] == [] and 0.05))
    print("made", flush=True)

if __name__ == "__main__":
    main()
"""


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> object:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def test_a_stage_ends_with_the_dvc_that_started_it_and_its_work_is_continued(project: Path) -> None:  # noqa: F811
    """The second start succeeds: it neither fails at the lock, nor writes beside the first."""
    (project / "slow.py").write_text(STAGE)
    (project / "parent.py").write_text(
        "import subprocess, sys; sys.exit(subprocess.run([sys.executable, 'slow.py']).returncode)"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "DVC_STAGE": "world"}
    command = [sys.executable, "parent.py"]
    first = subprocess.Popen(command, cwd=project, env=environment, stderr=subprocess.DEVNULL)
    (begun,) = wait_for(lambda: list((project / ".work" / "world").glob("*/begun")))  # type: ignore[misc]
    wait_for(lambda: (begun.parent / "9").exists())
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    reached = len(list(begun.parent.iterdir()))
    assert reached < 150
    second = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert second.returncode == 0 and "made" in second.stdout, second.stderr
    assert not begun.parent.exists() and not list((project / ".work" / "world").iterdir())
