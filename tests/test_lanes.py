"""Studies side by side: lanes that need nothing of each other, each in order, all in the end."""

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

from attention_atlas.lanes import repro_side_by_side, stages_in_lanes


def test_lanes_of_this_repository() -> None:
    shared, own = stages_in_lanes(ROOT)
    assert {"rooms", "tabletop", "signed_rooms"} <= set(shared)
    assert set(own) == {"grounding", "modality", "alignment", "vilt", "vllm"}
    every = [name for lanes in (shared, own) for stages in lanes.values() for name in stages]
    assert len(every) == len(set(every)) > 60 and "report" not in every
    for study, stages in own.items():
        assert all(name.startswith(f"{study}_") for name in stages)
    assert shared["rooms"][0] == "world@rooms" and own["grounding"][-1] != "grounding_train@lstm"


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
    assert stages_in_lanes(project) == [
        {"a": ["world@a"], "b": ["world@b"]},
        {"one": ["one_train", "one_plot"], "two": ["two_train"]},
    ]
    assert repro_side_by_side(project, os.environ) == 0
    assert (project / "report").read_text().split() == ["a", "b", "a", "b", "b"]
    stages = yaml.safe_load((project / "dvc.lock").read_text())["stages"]
    assert list(stages) == ["one_plot", "one_train", "report", "two_train", "world@a", "world@b"]
    again = subprocess.run(
        [sys.executable, "-m", "dvc", "repro"], cwd=project, capture_output=True, text=True
    )
    assert "up to date" in again.stdout + again.stderr
    assert "two          Running stage 'two_train'" in capfd.readouterr().out


def test_a_stage_that_fails_ends_with_dvcs_status(project: Path) -> None:
    broken = {**STAGES, "two_train": {**STAGES["two_train"], "cmd": "false"}}
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": broken}))
    assert repro_side_by_side(project, os.environ) != 0
    assert (project / "one_plot").exists() and not (project / "report").exists()


def test_an_interrupt_begins_no_further_lane(project: Path) -> None:
    count = (os.cpu_count() or 1) + 3
    lanes = {
        f"s{i}_x": {"cmd": f"echo > begun_{i}; sleep 20; echo > out_{i}", "outs": [f"out_{i}"]}
        for i in range(count)
    }
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": lanes}))
    code = (
        "import os, pathlib, attention_atlas.lanes as l; l.repro_side_by_side(pathlib.Path('.'), os.environ)"
    )
    run = subprocess.Popen([sys.executable, "-c", code], cwd=project, start_new_session=True)
    while not list(project.glob("begun_*")):
        assert run.poll() is None
        time.sleep(0.1)
    time.sleep(2)
    os.killpg(run.pid, signal.SIGINT)  # as a terminal sends it
    assert run.wait(15) != 0
    assert 0 < len(list(project.glob("begun_*"))) < count and not list(project.glob("out_*"))
