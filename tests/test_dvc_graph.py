"""The stages of dvc.yaml compose, and all files and groups that they name exist."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.manifests import FOLDER, NAME


def resolved_stages(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml but `manifests`, with params.yaml filled in by DVC itself."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stages = {}
        for stage in repo.index.stages:
            if stage.name == NAME:
                continue
            deps = [str(d.def_path) for d in stage.deps if type(d).__name__ == "Dependency"]
            stages[str(stage.name)] = {
                "cmd": stage.cmd,
                "deps": deps,
                "outs": [str(o.def_path) for o in stage.outs],
            }
        return stages


STAGES = resolved_stages()


def composed(cmd: str, root: Path = ROOT) -> Any:
    """The configuration of a stage's command line, composed by Hydra."""
    words = shlex.split(cmd)
    assert words[:2] == ["python", "-m"], cmd
    return compose(root, words[2].removeprefix("pipeline."), words[3:])


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_manifest_and_on_data(name: str) -> None:
    assert STAGES[name]["deps"][0] == f"data/manifests/{name}.yaml"
    assert all(path.startswith(("data/", "results/")) for path in STAGES[name]["deps"])


@pytest.mark.parametrize("name", STAGES)
def test_commands_stay_the_same_in_dvc_lock(name: str) -> None:
    """YAML folds double spaces, and a command that is read back otherwise makes its stage stale for ever."""
    assert STAGES[name]["cmd"] == " ".join(STAGES[name]["cmd"].split())


@pytest.mark.parametrize("name", STAGES)
def test_named_files_are_there(name: str) -> None:
    made = {str(FOLDER), *(out for stage in STAGES.values() for out in stage["outs"])}
    for path in STAGES[name]["deps"]:
        inside = any(o.startswith(f"{path}/") or path.startswith(f"{o}/") for o in made)
        assert path in made or inside or (ROOT / path).exists(), path


@pytest.mark.parametrize("profile", ["mini", "smoke"])
@pytest.mark.parametrize("name", STAGES)
def test_every_value_resolves(name: str, profile: str) -> None:
    OmegaConf.to_container(
        composed(f"{STAGES[name]['cmd']} profile={profile}"), resolve=True, throw_on_missing=True
    )


def test_the_graph_of_the_paper_profile(tmp_path: Path) -> None:
    """Its parameters name data sets and models that exist, and every stage's values resolve."""
    import shutil

    from dvc.repo import Repo

    from attention_atlas.workflow.profiles import apply_profile

    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    apply_profile(tmp_path, "paper")
    Repo.init(str(tmp_path), no_scm=True).close()
    stages = resolved_stages(tmp_path)
    assert not any(name.startswith(("world", "annotate")) for name in stages)
    for stage in stages.values():
        OmegaConf.to_container(composed(stage["cmd"], tmp_path), resolve=True, throw_on_missing=True)


def conf_files() -> list[Path]:
    return sorted((ROOT / "conf").rglob("*.yaml"))


@pytest.mark.parametrize("path", conf_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_no_hydra_interpolation_and_every_target_exists(path: Path) -> None:
    from hydra.utils import get_object

    text = path.read_text()
    assert "${hydra:" not in text
    values = OmegaConf.to_container(OmegaConf.load(path), resolve=False)

    def targets(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["_target_"]] if "_target_" in value else []
            return own + [t for v in value.values() for t in targets(v)]
        if isinstance(value, list):
            return [t for v in value for t in targets(v)]
        return []

    for target in targets(values):
        get_object(target)
