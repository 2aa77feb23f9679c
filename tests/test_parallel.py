"""Stages side by side: each after what it needs, all in the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from attention_atlas.workflow.parallel import jobs_here, repro_side_by_side, stage_needs


def test_stages_of_this_repository() -> None:
    needs = stage_needs(ROOT)
    order = list(needs)
    # Before a training comes what it reads.
    assert len(needs) > 60 and order[:2] == ["manifests", "world-rooms"]
    assert order.index("vlm_phases_train-llava_blind") < order.index(
        "vlm_phases_dump-llava_mini-rooms_captions"
    )
    assert needs["world-rooms"] == {"manifests"} and "world-rooms" in needs["grounding_train-lstm"]
    assert all(need in needs for of in needs.values() for need in of)
    assert not any("report" in of for of in needs.values())


def test_jobs_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"SC_PHYS_PAGES": 2**21, "SC_PAGE_SIZE": 2**12}  # 8 GiB
    monkeypatch.setattr(os, "sysconf", sizes.__getitem__)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    assert jobs_here() == 2
    sizes["SC_PHYS_PAGES"] *= 8
    assert jobs_here() == 4
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert jobs_here() == 1


STAGES = {
    "world": {
        "foreach": ["a", "b"],
        "do": {"cmd": "echo ${item} > world_${item}", "outs": ["world_${item}"]},
    },
    "one_train": {"cmd": "cat world_a world_b > one", "deps": ["world_a", "world_b"], "outs": ["one"]},
    "one_plot": {"cmd": "cat one one > one_plot", "deps": ["one"], "outs": ["one_plot"]},
    "two_train": {"cmd": "sleep 1; cat world_b > two", "deps": ["world_b"], "outs": ["two"]},
    "report": {"cmd": "cat one_plot two > report", "deps": ["one_plot", "two"], "outs": ["report"]},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for command in (["git", "init", "-q"], [sys.executable, "-m", "dvc", "init", "-q"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": STAGES}))
    return tmp_path


def test_everything_is_made(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert list(stage_needs(project).items()) == [
        ("world@a", set()),
        ("world@b", set()),
        ("one_train", {"world@a", "world@b"}),
        ("one_plot", {"one_train"}),
        ("two_train", {"world@b"}),
        ("report", {"one_plot", "two_train"}),
    ]
    assert repro_side_by_side(project, os.environ) == 0
    assert (project / "report").read_text().split() == ["a", "b", "a", "b", "b"]
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert list(stages) == ["one_plot", "one_train", "report", "two_train", "world@a", "world@b"]
    again = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, capture_output=True, text=True
    )
    assert "up to date" in again.stdout + again.stderr
    assert "two_train | Running stage 'two_train'" in capfd.readouterr().out


def test_a_stage_that_fails_ends_with_dvcs_status(project: Path) -> None:
    broken = {**STAGES, "two_train": {**STAGES["two_train"], "cmd": "false"}}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": broken}))
    assert repro_side_by_side(project, os.environ) != 0
    assert (project / "one_plot").exists() and not (project / "report").exists()


def test_stages_run_beside_others_but_never_before_what_they_need(project: Path) -> None:
    """Each stage writes when it begins and ends; `two` needs 1 s, in which `one` and its plot are done."""
    clock = f"{sys.executable} -c 'import time; print(time.time())'"
    timed = {}
    for name, stage in STAGES.items():
        body, item = (stage["do"], "_${item}") if "do" in stage else (stage, "")
        pause = "sleep 4; " if name.endswith("_train") else ""  # DVC itself takes a second or two to start
        command = f"{clock} > begin_{name}{item}; {pause}{body['cmd']}; {clock} > end_{name}{item}"
        body = {**body, "cmd": command}
        timed[name] = {**stage, "do": body} if "do" in stage else body
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": timed}))
    assert repro_side_by_side(project, os.environ, jobs=2) == 0
    begin, end = (
        {p.name.removeprefix(f"{what}_"): float(p.read_text()) for p in project.glob(f"{what}_*")}
        for what in ("begin", "end")
    )
    assert len(begin) == len(end) == 6
    for name, needs in stage_needs(project).items():
        assert all(end[need.replace("@", "_")] < begin[name.replace("@", "_")] for need in needs)
    assert max(begin["two_train"], begin["one_train"]) < min(end["two_train"], end["one_plot"])


def test_a_job_has_its_share_of_the_cores(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But a training alone, or nearly so, has all."""
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    many = {
        f"s{i}": {"cmd": f"echo $OMP_NUM_THREADS $ATLAS_CORES > s{i}", "outs": [f"s{i}"]} for i in range(6)
    }
    last = {"cmd": "echo $OMP_NUM_THREADS $ATLAS_CORES > last", "deps": [*many], "outs": ["last"]}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {**many, "last": last}}))
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_NUM_THREADS", "ATLAS_CORES")}
    assert repro_side_by_side(project, environment, jobs=2) == 0
    assert (project / "s0").read_text().split() == ["3", "3"]  # five others beside it
    assert (project / "s5").read_text().split() == (project / "last").read_text().split() == ["3"]


def test_only_some_stages_and_what_they_need(project: Path) -> None:
    command = [sys.executable, "-m", "attention_atlas.workflow.parallel"]
    assert subprocess.run([*command, "two_train"], cwd=project).returncode == 0
    made = {"world_a", "world_b", "one", "one_plot", "two", "report"} & {p.name for p in project.iterdir()}
    assert made == {"world_b", "two"}
    run = subprocess.run([*command, "--jobs", "-1"], cwd=project, capture_output=True, text=True)
    assert run.returncode in (1, 2) and run.stderr == "error: jobs: -1: give 0 (as many as fit) or more\n"
    run = subprocess.run([*command, "two_trane"], cwd=project, capture_output=True, text=True)
    assert run.returncode in (1, 2) and len(run.stderr.splitlines()) == 1
    assert "no stage 'two_trane'; did you mean 'two_train'?" in run.stderr


def test_an_interrupt_starts_no_further_job(project: Path) -> None:
    count = (os.cpu_count() or 1) + 3
    jobs = {
        f"s{i}_x": {"cmd": f"echo > begun_{i}; sleep 60; echo > out_{i}", "outs": [f"out_{i}"]}
        for i in range(count)
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": jobs}))
    code = (
        # Where a shell started the tests in the background, SIGINT is ignored.
        "import os, pathlib, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from attention_atlas.workflow.parallel import repro_side_by_side;"
        "repro_side_by_side(pathlib.Path('.'), os.environ)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=project, start_new_session=True)
    while not list(project.glob("begun_*")):
        assert run.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it
    assert run.wait(50) != 0
    assert 0 < len(list(project.glob("begun_*"))) < count and not list(project.glob("out_*"))


def test_after_a_kill_of_the_first_process_the_same_command_succeeds_at_once(project: Path) -> None:
    """Its `dvc` processes end with it; alive, they would hold the locks of their stages."""
    stages = {"slow": {"cmd": "test -e begun && echo > out || { echo > begun; sleep 60; }", "outs": ["out"]}}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    command = [sys.executable, "-m", "attention_atlas.workflow.parallel"]
    run = subprocess.Popen(command, cwd=project)
    while not (project / "begun").exists():
        assert run.poll() is None
        time.sleep(0.1)
    run.kill()
    run.wait()
    again = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stdout[-900:] + again.stderr[-900:]
    assert (project / "out").exists()


@pytest.mark.parametrize("left", ["", '{"write": {"/x'])
def test_a_lock_file_that_a_killed_dvc_left_half_written_is_no_obstacle(project: Path, left: str) -> None:
    (project / ".dvc" / "tmp").mkdir(exist_ok=True)
    (project / ".dvc" / "tmp" / "rwlock").write_text(left)
    assert repro_side_by_side(project, os.environ, targets=["world@a"]) == 0
