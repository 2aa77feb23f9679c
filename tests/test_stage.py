"""Every script ends bad input with one clear line, no traceback, exit code 1 or 2; work folders resume only
the same work."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from conftest import ROOT

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.params import check_params, read_params

PROBE = """
from attention_atlas.errors import AtlasError
from attention_atlas.workflow.stage import stage

@stage("world")
def main(cfg, job):
    if cfg.seed == 13:
        raise AtlasError("some.h5: features: has NaN; write it again")
    if cfg.seed == 14:
        from hydra.utils import instantiate

        instantiate({"_target_": "attention_atlas.data.corpus.read_corpus", "root": "nowhere"})
    print("ran with seed", cfg.seed, "on", job.device, "out", job.out("data/x"))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the repository's conf/ and a probe script that is the `world` stage."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(ROOT / "conf", folder / "conf")
    shutil.copy(ROOT / "params.yaml", folder)
    (folder / "probe.py").write_text(PROBE)
    return folder


def run(folder: Path, *words: str, params: str | None = None) -> subprocess.CompletedProcess[str]:
    original = (folder / "params.yaml").read_text()
    if params is not None:
        (folder / "params.yaml").write_text(params)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    environment["PYTHONPATH"] = str(ROOT / "src")
    try:
        return subprocess.run(
            [sys.executable, "probe.py", *words], cwd=folder, env=environment, capture_output=True, text=True
        )
    finally:
        (folder / "params.yaml").write_text(original)


def only_line(result: subprocess.CompletedProcess[str], code: int) -> str:
    assert result.returncode == code, result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def test_a_stage_runs_and_writes_nothing_but_the_store(project: Path) -> None:
    result = run(project)
    assert result.returncode == 0, result.stderr
    assert "ran with seed 0 on cpu out data/x" in result.stdout
    made = {p.name for p in project.iterdir()} - {"conf", "params.yaml", "probe.py", "__pycache__"}
    assert made <= {"mlflow.db", ".work", "mlartifacts"}


def test_command_line_wins_over_params(project: Path) -> None:
    assert "seed 7" in run(project, "seed=7").stdout


def test_bad_input_is_one_line(project: Path) -> None:
    assert "some.h5: features: has NaN" in only_line(run(project, "seed=13"), 1)


def test_bad_input_inside_instantiate_is_one_line(project: Path) -> None:
    assert "nowhere/scenes.jsonl: no such file" in only_line(run(project, "seed=14"), 1)


def test_absent_device_is_one_line(project: Path) -> None:
    line = only_line(run(project, "device.world=cuda:7"), 2)
    assert "device.world" in line and "cuda:7" in line and "auto" in line


def test_typo_in_a_parameter_is_one_line(project: Path) -> None:
    params = (project / "params.yaml").read_text().replace("seed: 0", "sed: 0")
    line = only_line(run(project, params=params), 2)
    assert "params.yaml: sed: no such parameter; did you mean 'seed'?" in line


def test_typo_on_the_command_line_is_one_line(project: Path) -> None:
    assert "sed" in only_line(run(project, "sed=1"), 2)


def test_unknown_choice_names_the_known_ones(project: Path) -> None:
    line = only_line(run(project, "data=roooms"), 2)
    assert "roooms" in line and "rooms" in line


def test_unknown_profile_is_one_line(project: Path) -> None:
    only_line(run(project, "profile=big"), 2)


def test_help_is_fast_and_loads_no_heavy_package(project: Path) -> None:
    code = (
        "import sys, runpy; sys.argv=['probe.py', '--help']\n"
        "try: runpy.run_path('probe.py', run_name='__main__')\n"
        "except SystemExit: pass\n"
        "heavy = {'torch','mlflow','transformers','spacy','vtk','matplotlib','pandas'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert "heavy: []" in result.stdout, result.stdout + result.stderr


@pytest.mark.parametrize("script", sorted(p.stem for p in (ROOT / "pipeline").glob("[a-z]*.py")))
def test_every_script_composes(script: str) -> None:
    result = subprocess.run(
        [sys.executable, "-m", f"pipeline.{script}", "--cfg", "job"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "profile:" in result.stdout


def test_values_of_params_yaml_are_valid() -> None:
    read_params(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": "zero"}, "seed: Value 'zero' of type 'str' could not be converted to Integer"),
        ({"seed": True}, "seed: Value 'True' of type 'bool'"),
        ({"profile": "huge"}, "profile: 'huge' is unknown"),
        ({"device": {"trane": "cpu"}}, "device: 'trane' is unknown; did you mean 'train'"),
        ({"device": "cpu"}, "device: Cannot assign str"),
        ({"studies": 3}, "studies: "),
        ({"limit": {"steps": 1}}, "limit.examples: Missing mandatory value"),
        ({"limit": {"step": 1}}, "limit.step: "),
        ({"sede": 1}, "sede: no such parameter; did you mean 'seed'"),
    ],
)
def test_wrong_parameters(change: dict[str, object], message: str) -> None:
    values = {**read_params(ROOT / "params.yaml"), **change}
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        check_params(values)


def test_work_folder_changes_with_config_and_inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from omegaconf import OmegaConf

    from attention_atlas.workflow.stage import Job

    monkeypatch.chdir(tmp_path)
    data = tmp_path / "in.txt"
    data.write_text("one")

    def folder(seed: int, **machine: object) -> Path:
        own = {"inputs": {"in": str(data)}, "outputs": {}, "device": {"world": "cpu"}}
        return Job("world", OmegaConf.create({"seed": seed, **own, **machine}), Mock(), None).work()

    first = folder(0)
    assert folder(0, workers=4) == first, "a machine setting must not discard work"
    assert folder(1) != first
    data.write_text("two")
    assert folder(0) != first


def test_an_input_that_the_configuration_does_not_name_is_refused(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    from attention_atlas.errors import AtlasError
    from attention_atlas.workflow.stage import Job

    known = tmp_path / "known"
    known.mkdir()
    (known / "file.txt").write_text("x")
    cfg = {"inputs": {"folder": str(known)}, "outputs": {}, "device": {"link": "cpu"}}
    job = Job("link", OmegaConf.create(cfg), Mock(), None)
    assert job.inputs == [str(known)] and job.input(known / "file.txt").exists()
    with pytest.raises(AtlasError, match="does not name it; add it to `inputs`"):
        job.input(tmp_path / "other")
    with pytest.raises(AtlasError, match="no such file or folder; run the stage that writes it"):
        job.input(known / "missing.txt")


def test_a_second_run_of_the_same_work_fails_in_one_line_and_the_first_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf

    from attention_atlas.errors import AtlasError
    from attention_atlas.workflow.stage import Job

    monkeypatch.chdir(tmp_path)
    cfg = OmegaConf.create({"seed": 0, "device": {"world": "cpu"}, "outputs": {}})
    first, second = (Job("world", cfg, None, None) for _ in range(2))
    work = first.work()
    (work / "kept").write_text("x")
    with pytest.raises(AtlasError, match=f"{work}: another process is writing here; wait"):
        second.work()
    second.finish()
    assert (work / "kept").exists(), "a run that was refused must not remove the other's work"
    first.release()  # as when the stage fails
    assert (second.work() / "kept").exists()
    second.finish()
    assert not list((tmp_path / ".work" / "world").iterdir())


def test_linked_folders_belong_to_the_digest_and_cycles_end(tmp_path: Path) -> None:
    from attention_atlas.workflow.digests import content_hash

    images, elsewhere = tmp_path / "images", tmp_path / "elsewhere"
    (images / "val").mkdir(parents=True)
    (elsewhere / "deep").mkdir(parents=True)
    (images / "val" / "a.png").write_text("a")
    (elsewhere / "deep" / "b.png").write_text("b")
    (images / "train").symlink_to(elsewhere)
    (images / "again").symlink_to(elsewhere / "deep")
    first = content_hash(images)
    (elsewhere / "deep" / "b.png").write_text("another")
    assert content_hash(images) != first

    from attention_atlas.files import files_under

    before = files_under(images)
    (elsewhere / "deep" / "up").symlink_to(images)
    (images / "self").symlink_to(images)
    (images / "nowhere").symlink_to(tmp_path / "absent")
    assert files_under(images) == before
    assert [p.relative_to(images).as_posix() for p in before] == [
        "again/b.png",
        "train/deep/b.png",
        "val/a.png",
    ]


def test_digest_of_a_folder_without_links_is_that_of_earlier_versions(tmp_path: Path) -> None:
    """Otherwise every unfinished run would start from scratch."""
    import hashlib

    from attention_atlas.workflow.digests import content_hash

    files = {"a.txt": "1", "b/c.txt": "2", "b-d/e.txt": "3", ".hidden": "4"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    digest = hashlib.sha256()
    for item in sorted(p for p in tmp_path.rglob("*") if p.is_file()):
        digest.update(
            f"{item.relative_to(tmp_path)}:{hashlib.sha256(item.read_bytes()).hexdigest()}".encode()
        )
    assert content_hash(tmp_path) == digest.hexdigest()[:16]


def test_data_and_models_of_the_user_belong_to_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from omegaconf import OmegaConf

    from attention_atlas.workflow.stage import Job, job_digest

    monkeypatch.chdir(tmp_path)
    for folder in ("kitchens", "models/llava"):
        Path(folder).mkdir(parents=True)
    table = Path("kitchens/texts.csv")
    cfg = OmegaConf.create(
        {
            "outputs": {"out": "data/x"},
            "device": {"dump": "cpu"},
            "data": {"name": "own", "reader": {"root": "./kitchens/", "text": "raw"}},
            "model": {"path": "models/llava", "name": "llava"},
        }
    )
    assert Job("dump", cfg, Mock(), None).inputs == ["kitchens", "models/llava"]
    found = set()
    for words in ("a chair", "a red chair"):
        table.write_text(words)
        found |= {job_digest(cfg), Job("dump", cfg, Mock(), None).digest()}
    assert len(found) == 2


SLOW_MLFLOW = """
import contextlib
import os
import signal

from attention_atlas.workflow import tracking
from attention_atlas.workflow.ranks import Silent
from attention_atlas.workflow.stage import stage

@contextlib.contextmanager
def killed_meanwhile(*_):
    yield Silent()
    os.kill(os.getpid(), signal.SIGKILL)

tracking.stage_run = killed_meanwhile

@stage("world")
def main(cfg, job):
    (job.work() / "checkpoint").touch()
    job.out("data/x").touch()

if __name__ == "__main__":
    main()
"""


def test_a_job_killed_while_mlflow_does_not_answer_is_done(project: Path) -> None:
    from attention_atlas.workflow.sweeps import read_status

    words = ("-m", "seed=1", "hydra.sweep.dir=sweep")
    (project / "slow.py").write_text(SLOW_MLFLOW)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "ATLAS", "DVC"))}
    subprocess.run(
        [sys.executable, "slow.py", *words], cwd=project, env={**environment, "PYTHONPATH": str(ROOT / "src")}
    )
    status = read_status(project / "sweep/seed=1")
    assert status["status"] == "done" and status["written"] == ["sweep/seed=1/x"]
    assert len(list((project / ".work/world").glob("*/checkpoint"))) == 1, "its work is removed last"
    assert "skipped: sweep/seed=1: already done" in run(project, *words).stdout
    (project / "sweep/seed=1/x").unlink()
    assert "ran with seed 1" in run(project, *words).stdout
