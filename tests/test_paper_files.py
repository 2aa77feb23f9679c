"""What the stages of the paper profile read is made by a stage or named in conf/paper_files.yaml."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from test_dvc_graph import composed, resolved_stages

from attention_atlas.training.run import build_task
from attention_atlas.workflow.manifests import FOLDER
from attention_atlas.workflow.paper_check import read_list
from attention_atlas.workflow.paths import features_path
from attention_atlas.workflow.profiles import apply_profile


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Each stage of the paper profile with `cfg`, what it is composed of."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("paper")
    shutil.copytree(ROOT / "conf", root / "conf")
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, root)
    apply_profile(root, "paper")
    Repo.init(str(root), no_scm=True).close()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # params.yaml is read from the working directory
        found = resolved_stages(root)
        for stage in found.values():
            stage["cfg"] = composed(stage["cmd"], root)
        yield found


def paths(value: Any) -> Iterator[str]:
    """Every text below `value` that is a path of raw data."""
    if isinstance(value, dict):
        for item in value.values():
            yield from paths(item)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item)
    elif isinstance(value, str) and value.startswith("data/raw/"):
        yield value


def related(path: str, others: set[str]) -> bool:
    """Whether one of the others is this path, lies in it, or holds it."""
    return any(path == o or path.startswith(f"{o}/") or o.startswith(f"{path}/") for o in others)


def test_raw_data_is_in_the_list(stages: dict[str, Any]) -> None:
    listed = {str(entry["path"]) for entry in read_list(ROOT / "conf/paper_files.yaml")["files"]}
    for name, stage in stages.items():
        read = {d for d in stage["deps"] if d.startswith("data/raw/")}
        for section, value in stage["cfg"].items():
            # Parameters of other stages are in the configuration too; its own sections are what counts.
            if (
                section in ("data", "model", "train", "features", "ocr", "metrics", "linker")
                and value is not None
            ):
                read |= set(paths(OmegaConf.to_container(value, resolve=True)))
        for path in sorted(read):
            assert related(path, listed), f"{name}: {path}: name it in conf/paper_files.yaml"


def test_inputs_are_made_by_a_stage(stages: dict[str, Any]) -> None:
    made = {str(FOLDER), *(out for stage in stages.values() for out in stage["outs"])}
    for name, stage in stages.items():
        for path in stage["deps"]:
            if path.startswith("data/") and not path.startswith("data/raw/"):
                assert related(path, made), f"{name}: {path}"


def test_features_of_trainings_are_made_by_a_stage(stages: dict[str, Any]) -> None:
    """A task's features follow from its data set, without a line in the configuration."""
    made = {out for stage in stages.values() for out in stage["outs"]}
    asked = 0
    for name, stage in stages.items():
        script = stage["cmd"].split()[2]
        if script == "pipeline.train" and getattr(build_task(stage["cfg"]), "uses_features", True):
            asked += 1
            assert features_path(stage["cfg"]) in made, f"{name}: {features_path(stage['cfg'])}"
    assert asked > 3
