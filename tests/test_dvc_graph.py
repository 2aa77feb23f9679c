"""dvc.yaml names every conf file that a stage's composition reads, and nothing that is not there."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from attention_atlas import resolvers  # noqa: F401


def resolved_stages(root: Path = ROOT) -> dict[str, dict[str, Any]]:
    """The stages of dvc.yaml with params.yaml filled in, as DVC itself does it."""
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        stages = {}
        for stage in repo.index.stages:
            params = [dep for dep in stage.deps if type(dep).__name__ == "ParamsDependency"]
            deps = [str(d.def_path) for d in stage.deps if type(d).__name__ == "Dependency"]
            stages[stage.addressing] = {
                "cmd": stage.cmd,
                "deps": [d for d in deps if not d.startswith("conf/")],
                "files": {d for d in deps if d.startswith("conf/")},
                "dials": [key for p in params if p.def_path == "params.yaml" for key in p.params],
                "outs": [str(o.def_path) for o in stage.outs],
            }
        return stages


STAGES = resolved_stages()


def with_bases(path: str, root: Path) -> set[str]:
    """The file and those of its own folder that its defaults list includes, as a blind model's does."""
    values = OmegaConf.to_container(OmegaConf.load(root / path), resolve=False)
    folder, found = path.rpartition("/")[0], {path}
    for entry in values.get("defaults") or [] if isinstance(values, dict) else []:
        if isinstance(entry, str) and entry != "_self_" and not entry.startswith("/"):
            found |= with_bases(f"{folder}/{entry}.yaml", root)
    return found


def composed(cmd: str, root: Path = ROOT) -> tuple[Any, set[str]]:
    """(configuration, conf files read) for a stage's command line, asked of Hydra."""
    words = shlex.split(cmd)
    assert words[:2] == ["python", "-m"], cmd
    name = words[2].removeprefix("pipeline.")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(root / "conf"), version_base="1.3"):
        cfg = compose(f"stage/{name}", overrides=words[3:], return_hydra_config=True)
    files = {"conf/config.yaml", f"conf/stage/{name}.yaml"}
    for group, choice in cfg.hydra.runtime.choices.items():
        group = group.split("@")[0]
        if choice and not group.startswith("hydra/"):
            files |= with_bases(f"conf/{group}/{choice}.yaml", root)
    OmegaConf.set_readonly(cfg.hydra, False)
    return cfg, files


@pytest.mark.parametrize("name", STAGES)
def test_stage_names_exactly_the_conf_files_it_reads(name: str) -> None:
    _, files = composed(STAGES[name]["cmd"])
    assert STAGES[name]["files"] == files


@pytest.mark.parametrize("name", STAGES)
def test_stage_is_stale_after_profile_seed_and_its_device(name: str) -> None:
    stage = STAGES[name]["cmd"].split()[2].removeprefix("pipeline.")
    assert {"profile", "seed", f"device.{stage}"} <= set(STAGES[name]["dials"])


@pytest.mark.parametrize("name", STAGES)
def test_named_files_are_there(name: str) -> None:
    made = {out for stage in STAGES.values() for out in stage["outs"]}
    for path in STAGES[name]["deps"]:
        inside = any(o.startswith(f"{path}/") or path.startswith(f"{o}/") for o in made)
        assert path in made or inside or (ROOT / path).exists(), path
    for path in STAGES[name]["files"]:
        assert (ROOT / path).is_file(), path


@pytest.mark.parametrize("name", STAGES)
def test_stage_depends_on_every_package_it_imports(name: str) -> None:
    """A stage whose script imports attention_atlas.x (a package) lists src/attention_atlas/x."""
    import re

    script = STAGES[name]["cmd"].split()[2].replace(".", "/") + ".py"
    packages = set(re.findall(r"from attention_atlas\.(\w+)", (ROOT / script).read_text()))
    for package in packages:
        if (ROOT / "src/attention_atlas" / package).is_dir():
            assert f"src/attention_atlas/{package}" in STAGES[name]["deps"], package


@pytest.mark.parametrize("name", STAGES)
def test_stages_that_read_pictures_depend_on_their_opener(name: str) -> None:
    readers = {f"src/attention_atlas/{p}" for p in ("vision", "vqa", "text_to_image", "vllm")}
    deps = STAGES[name]["deps"]
    assert "src/attention_atlas/datasets/pictures.py" in deps or not readers & set(deps)


@pytest.mark.parametrize("profile", ["embedded", "smoke"])
@pytest.mark.parametrize("name", STAGES)
def test_every_value_resolves(name: str, profile: str) -> None:
    cfg, _ = composed(f"{STAGES[name]['cmd']} profile={profile}")
    for key, value in cfg.items():
        if key != "hydra" and OmegaConf.is_config(value):
            OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


def test_the_graph_of_the_paper_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its dials name data sets and models that exist, and every stage's values resolve."""
    import shutil

    from dvc.repo import Repo

    from attention_atlas.profiles import apply_profile

    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    apply_profile(tmp_path, "paper")
    Repo.init(str(tmp_path), no_scm=True).close()
    monkeypatch.chdir(tmp_path)  # params.yaml is read from where one stands
    stages = resolved_stages(tmp_path)
    assert not any(name.startswith(("world", "annotate")) for name in stages)
    for name, stage in stages.items():
        cfg, files = composed(stage["cmd"], tmp_path)
        assert stage["files"] == files, name
        for key, value in cfg.items():
            if key != "hydra" and OmegaConf.is_config(value):
                OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


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
