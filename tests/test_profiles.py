"""Profiles: values for params.yaml."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.profiles import apply_profile, copy_repository


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "conf" / "profiles", tmp_path / "conf" / "profiles")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "conf/profiles").glob("*.yaml")))
def test_a_profile_sets_its_parameters_and_keeps_the_others(project: Path, name: str) -> None:
    before = yaml.safe_load((project / "params.yaml").read_text())
    apply_profile(project, name)
    text = (project / "params.yaml").read_text()
    after = yaml.safe_load(text)
    assert after["profile"] == name
    assert after["seed"] == before["seed"] and set(after) == set(before)
    assert text.startswith("# Everything else is in conf/."), "comments are kept"


def test_unknown_profile(project: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'smoke'"):
        apply_profile(project, "smok")


def test_a_typo_in_a_profile_changes_nothing(project: Path) -> None:
    before = (project / "params.yaml").read_text()
    (project / "conf/profiles/mine.yaml").write_text("profile: smoke\nsede: 1\n")
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        apply_profile(project, "mine")
    assert (project / "params.yaml").read_text() == before


def test_every_file_of_a_profile_takes_the_place_of_another() -> None:
    """A misspelt name would be read by nothing."""
    for path in (ROOT / "conf/profiles").glob("*/**/*.yaml"):
        replaced = Path(*path.relative_to(ROOT / "conf/profiles").parts[1:])
        assert (ROOT / "conf" / replaced).is_file(), path


def git(folder: Path, *words: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", *identity, *words], cwd=folder, check=True, capture_output=True)


def test_copy_takes_uncommitted_files_and_drops_removed_ones(tmp_path: Path) -> None:
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    git(source, "init", "-q")
    for name in ("kept.txt", "removed.txt", "changed.txt"):
        (source / name).write_text("one")
    git(source, "add", "-A")
    git(source, "commit", "-qm", "one")
    (source / "changed.txt").write_text("two")
    (source / "new.txt").write_text("new")
    (source / "removed.txt").unlink()
    copy_repository(source, copy)
    assert sorted(p.name for p in copy.glob("*.txt")) == ["changed.txt", "kept.txt", "new.txt"]
    assert (copy / "changed.txt").read_text() == "two"
    stamp = (copy / "kept.txt").stat().st_mtime_ns
    (copy / "output.bin").write_text("made by a run")
    copy_repository(source, copy)
    assert (copy / "kept.txt").stat().st_mtime_ns == stamp
    assert (copy / "output.bin").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.stem for p in (ROOT / "conf/profiles").glob("*.yaml")))
def test_dvc_reads_the_graph_of_every_profile(tmp_path: Path, name: str) -> None:
    """No item of a foreach is missing, no two stages write the same file, and there is no cycle."""
    copy_repository(ROOT, tmp_path / "copy")
    apply_profile(tmp_path / "copy", name)
    from dvc.repo import Repo

    with Repo(str(tmp_path / "copy")) as repo:
        assert repo.index.graph.number_of_nodes() > 40
