"""dvc.yaml is what conf/ says, in every profile, and its stages compose."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.graph import Graph, expand, inputs_of, paths_in
from attention_atlas.workflow.manifests import FOLDER, Manifests, profile_graph, stage_config

PROFILES = ("mini", "mini-long", "smoke", "paper")


@functools.cache
def graph(profile: str) -> Graph:
    return profile_graph(ROOT, profile)


def test_dvc_yaml_is_up_to_date() -> None:
    assert (ROOT / "dvc.yaml").read_text() == graph("mini").text(), (
        "run python -m attention_atlas.workflow.manifests, then commit dvc.yaml"
    )


def test_dvc_reads_the_stages_as_they_are() -> None:
    """YAML folds spaces, and a command that is read back otherwise makes its stage stale for ever."""
    from dvc.repo import Repo

    with Repo(str(ROOT)) as repo:
        found = {stage.addressing: stage for stage in repo.index.stages}
    stages = graph("mini").stages
    assert found.keys() == {"manifests", *stages}
    for name, stage in stages.items():
        deps = [str(d.def_path) for d in found[name].deps if type(d).__name__ == "Dependency"]
        assert found[name].cmd == stage.command == " ".join(stage.command.split())
        assert deps == [f"{FOLDER}/{name}.yaml", *stage.inputs]
        assert {str(out.def_path) for out in found[name].outs} == set(stage.outputs)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_input_is_made_by_a_stage_or_is_raw_data(profile: str) -> None:
    found = graph(profile)
    for name, stage in found.stages.items():
        made = [path for producer in found.producers(name) for path in producer.outputs]
        for path in stage.inputs:
            inside = any(
                out == path or out.startswith(f"{path}/") or path.startswith(f"{out}/") for out in made
            )
            assert inside or path.startswith("data/raw/"), f"{name}: {path}"
    assert any(name.startswith("world") for name in found.stages) == (profile != "paper")


@pytest.mark.parametrize("profile", PROFILES)
def test_stages_come_after_what_they_read(profile: str) -> None:
    found, seen = graph(profile), set[str]()
    for name in found.stages:
        # A study's own stages may be listed in any order; data comes first.
        assert all(p.name in seen or "_" in p.name for p in found.producers(name)), name
        seen.add(name)


@pytest.mark.parametrize(
    ("lines", "stages"),
    [
        ("train data=a model=b", {"fit": "train data=a model=b"}),
        ("train data=a model=b,c", {"fit-b": "train data=a model=b", "fit-c": "train data=a model=c"}),
        ("dump data=a,b model=c", {"fit-a": "dump data=a model=c", "fit-b": "dump data=b model=c"}),
        (
            ["train model=b,c data=a", "train model=b data=d"],
            {
                "fit-b-a": "train model=b data=a",
                "fit-c-a": "train model=c data=a",
                "fit-b-d": "train model=b data=d",
            },
        ),
        ("train model=b,", {"fit": "train model=b"}),
        ("plot", {"fit": "plot"}),
    ],
)
def test_a_line_is_a_stage_for_each_combination(lines: Any, stages: dict[str, str]) -> None:
    assert {name: " ".join(words) for name, words in expand("fit", lines)} == stages


def test_inputs_are_the_paths_of_a_configuration() -> None:
    config = {
        "data": {"root": "data/unread", "reader": {"root": "data/w", "layer": "data/w/x.jsonl", "n": 3}},
        "model": {"training": {"features": None, "task": {"start": "data/models/a"}}},
        "train": {"features": "data/f.h5", "task": {"layers": [{"root": "data/v/"}]}, "loop": {"lr": 1.0}},
        "study": {"note": "data/not"},
        "paths": {"features": "data/f.h5"},
        "inputs": {"table": "results/t.csv"},
        "outputs": {"model": "data/models/b"},
        "title": "text/image",
    }
    assert inputs_of(config) == ["data/models/a", "data/v", "data/w", "results/t.csv"]
    assert inputs_of(config, ["data/w"]) == ["data/models/a", "data/v", "results/t.csv"]


def test_a_string_that_is_a_folder_is_read_but_not_the_repository_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The LSTM's `sentence_ends` has ".": a work folder named by the digest of everything never resumes."""
    (tmp_path / "here" / "images").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    model = {"sentence_ends": [".", "..", "../", "!"], "path": "images"}
    assert inputs_of({"model": model}, exists=os.path.exists) == ["images"]
    assert list(paths_in({"a": ["/abs/x", "hub/id", 3, None]})) == ["/abs/x"]


def tiny(tmp_path: Path, **studies: str) -> Graph:
    for name, stages in studies.items():
        (tmp_path / "conf/study").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"conf/study/{name}.yaml").write_text(f"name: {name}\nstages: {{{stages}}}\n")

    def config(words: Any) -> dict[str, Any]:
        chosen = dict(word.split("=", 1) for word in words[1:])
        return {"outputs": {"it": f"data/{chosen.get('model', words[0])}"}, "inputs": {}}

    return Graph(tmp_path, {"studies": [*studies], "profile": "mini"}, config)


def test_broken_yaml_is_one_line_with_the_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"grounding\.yaml.*correct the YAML$"):
        tiny(tmp_path, grounding="train: [")
    shutil.copytree(ROOT / "conf", tmp_path / "conf", dirs_exist_ok=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "src").symlink_to(ROOT / "src")
    (tmp_path / "conf/model/lstm.yaml").write_text("dim: &a 1\nhidden: &a 2\n")
    with pytest.raises(ConfigError, match=r"lstm\.yaml.*correct the YAML$"):
        Manifests(tmp_path).config(["train", "study=grounding", "model=lstm"])


SIZES = """\
name: sizes
labels: [lamp, table]
stages:
  metrics: metrics metrics=own data=rooms
  plot: plot figure=own
metrics:
  _target_: attention_atlas.studies.sizes.areas.Metrics
  features: ${paths.features}
figures:
  areas: {_target_: attention_atlas.studies.sizes.figures.areas}
"""


def test_a_study_is_one_file_of_conf(tmp_path: Path) -> None:
    """What it measures and draws stands in conf/study/<study>.yaml; the report shows its figures."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/study/sizes.yaml").write_text(SIZES)
    params = (ROOT / "params.yaml").read_text()
    line = next(line for line in params.splitlines() if line.startswith("studies:"))
    (tmp_path / "params.yaml").write_text(params.replace(line, "studies: [sizes]"))
    stages = profile_graph(tmp_path, "mini").stages
    assert list(stages) == ["world-rooms", "features-rooms", "sizes_metrics", "sizes_plot", "report"]
    metrics, plot = stages["sizes_metrics"], stages["sizes_plot"]
    assert metrics.inputs == ["data/features/rooms.h5", "data/synthetic/rooms"]
    assert metrics.outputs == ["results/sizes/tables/metrics.csv", "results/sizes/metrics.json"]
    assert "study" in metrics.config and metrics.config["study"].keys() == {"name", "labels"}
    assert (plot.inputs, plot.outputs) == (["results/sizes/tables"], ["results/sizes/figures"])
    assert list(plot.config["figure"]) == ["areas"]
    assert stages["report"].command == "python -m pipeline.report 'report=[]' 'plain=[sizes]'"
    assert stages["report"].config["reports"] == {}


def test_a_published_model_is_one_file_and_its_name_in_the_study(tmp_path: Path) -> None:
    """It has no training; every other stage runs on it."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    params = (ROOT / "params.yaml").read_text()
    line = next(line for line in params.splitlines() if line.startswith("studies:"))
    (tmp_path / "params.yaml").write_text(params.replace(line, "studies: [vlm_phases]"))
    own = "defaults: [llava_7b, _self_]\nname: llava_own\npretrained: data/raw/my_llava\n"
    (tmp_path / "conf/model/llava_own.yaml").write_text(own)
    study = tmp_path / "conf/study/vlm_phases.yaml"
    before = profile_graph(tmp_path, "mini").stages
    study.write_text(study.read_text().replace("models: [llava_mini,", "models: [llava_own, llava_mini,"))
    profile_graph.cache_clear()
    new = {name for name in profile_graph(tmp_path, "mini").stages if name not in before}
    data = ("rooms_captions", "tabletop_captions")
    assert new == {
        *(f"vlm_phases_dump-llava_own-{name}" for name in data),
        "vlm_phases_order-llava_own",
    }


def test_a_study_without_metrics_is_an_error(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "conf/study/sizes.yaml").write_text("name: sizes\n")
    with pytest.raises(ConfigError, match=r"study\.metrics"):
        stage_config(compose(tmp_path, "metrics", ["study=sizes", "metrics=own"]), "metrics")


def test_two_stages_cannot_write_the_same_file(tmp_path: Path) -> None:
    assert tiny(tmp_path, a="fit: train model=x").stages.keys() == {"a_fit", "report"}
    with pytest.raises(ConfigError, match="b_fit: writes data/x, as does a_fit; remove one"):
        tiny(tmp_path, a="fit: train model=x", b="fit: train model=x")


def test_a_study_that_does_not_exist(tmp_path: Path) -> None:
    tiny(tmp_path, grounding="fit: train model=x")
    with pytest.raises(ConfigError, match=r"studyx|no such file; did you mean 'grounding'"):
        Graph(tmp_path, {"studies": ["groundin"], "profile": "mini"}, lambda words: {})


def test_the_stage_that_does_not_compose_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = "parse data=no_such"

    def declared(self: Graph, study: str) -> Any:
        yield from expand("grounding_parse", broken)

    monkeypatch.setattr(Graph, "_declared", declared)
    with pytest.raises(ConfigError, match=r"dvc\.yaml: grounding_parse: conf: .*no_such"):
        Manifests(ROOT)


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
