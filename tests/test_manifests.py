"""What a stage's manifest lists: the files it can import, and the configuration that it computes with."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from attention_atlas.workflow.manifests import Manifests, stage_config, targets
from attention_atlas.workflow.sources import Sources

FILES = {
    "pipeline/__init__.py": "",
    "pipeline/run.py": "def main():\n    from attention_atlas.a import thing\n",
    "src/attention_atlas/__init__.py": "",
    "src/attention_atlas/a.py": (
        "from typing import TYPE_CHECKING\nimport torch\nfrom attention_atlas import errors\n"
        "if TYPE_CHECKING:\n    from attention_atlas.unused import U\n"
    ),
    "src/attention_atlas/errors.py": "",
    "src/attention_atlas/unused.py": "U = 1\n",
    # Imports the modules of its folder by name.
    "src/attention_atlas/kinds/__init__.py": (
        "import importlib, pkgutil\nfrom attention_atlas.kinds.base import KINDS\n"
        "for m in pkgutil.iter_modules(__path__):\n    importlib.import_module(f'{__name__}.{m.name}')\n"
    ),
    "src/attention_atlas/kinds/base.py": "KINDS = {}\n",
    "src/attention_atlas/kinds/one.py": "from .base import KINDS\nfrom ..a import thing\n",
    # Loads a module when its name is looked up.
    "src/attention_atlas/lazy/__init__.py": (
        "import importlib\ndef __getattr__(name):\n    return importlib.import_module(WHERE[name])\n"
    ),
    "src/attention_atlas/lazy/light.py": "",
    "src/attention_atlas/lazy/heavy.py": "class Heavy: pass\n",
}


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return Sources(tmp_path)


def found(sources: Sources, *modules: str) -> set[str]:
    return {str(path).removeprefix("src/attention_atlas/") for path in sources.closure(modules)}


@pytest.mark.parametrize(
    ("modules", "files"),
    [
        # An import inside a function counts, one for the type checker does not, errors.py changes no result.
        (["pipeline.run"], {"pipeline/__init__.py", "pipeline/run.py", "__init__.py", "a.py"}),
        (["attention_atlas.a.thing"], {"__init__.py", "a.py"}),
        (["torch.nn.Linear"], set()),
        (
            ["attention_atlas.kinds.base"],
            {"__init__.py", "kinds/__init__.py", "kinds/base.py", "kinds/one.py", "a.py"},
        ),
        (["attention_atlas.lazy.light"], {"__init__.py", "lazy/__init__.py", "lazy/light.py"}),
        (
            ["attention_atlas.lazy.Heavy"],
            {"__init__.py", "lazy/__init__.py", "lazy/light.py", "lazy/heavy.py"},
        ),
    ],
)
def test_the_files_that_a_module_can_import(sources: Sources, modules: list[str], files: set[str]) -> None:
    assert found(sources, *modules) == files


def test_targets_at_any_depth() -> None:
    config = {"_target_": "a.B", "list": [{"_target_": "c.D"}, 1], "x": {"y": {"_target_": "e.F"}, "z": None}}
    assert targets(config) == {"a.B", "c.D", "e.F"}


def test_a_configuration_without_what_changes_no_result() -> None:
    from attention_atlas.workflow.compose import compose

    def config(*overrides: str) -> dict[str, Any]:
        return stage_config(compose(ROOT, "train", overrides), "train")

    plain = config()
    assert plain["device"] == "auto" and plain["train"]["loop"] and "world" not in plain["data"]
    for change in (
        "workers=3",
        "device.plot=cpu",
        "data.world.image_size=99",
        "studies=[grounding]",
        "study.stages={}",
        "study.captioners=[lstm]",
    ):
        assert config(change) == plain, change
    for change in (
        "seed=1",
        "device.train=cpu",
        "profile=smoke",
        "train.loop.epochs=1",
        "data.root=elsewhere",
    ):
        assert config(change) != plain, change


@pytest.fixture(scope="module")
def manifests() -> Manifests:
    return Manifests(ROOT)


def test_models_that_a_stage_loads_are_listed(manifests: Manifests) -> None:
    code = manifests.manifest("modality_dump")["code"]
    names = {Path(name).stem for name in code if name.startswith("src/attention_atlas/models/")}
    assert {"text_only", "caption_transformer"} <= names
    assert not {"mac", "scan", "m4c"} & names
    lstm = manifests.manifest("grounding_generate-lstm")["code"]
    assert "src/attention_atlas/models/lstm.py" in lstm and "src/attention_atlas/models/lstm.py" not in code


def test_configurations_are_composed_again_only_if_something_changed(
    manifests: Manifests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []

    def compose(self: Manifests, words: Sequence[str]) -> dict[str, Any]:
        composed.append(" ".join(words))
        return manifests.config(words)

    def made(digest: str) -> Manifests:
        monkeypatch.setattr(Manifests, "_digest", lambda self: digest)
        again = Manifests(ROOT)
        again.write()
        return again

    monkeypatch.setattr(Manifests, "_compose", compose)
    monkeypatch.setattr("attention_atlas.workflow.manifests.FOLDER", tmp_path / "manifests")
    (tmp_path / "manifests" / "old").mkdir(parents=True)
    first = made("a")
    assert composed and not (tmp_path / "manifests" / "old").exists()
    path = tmp_path / "manifests" / "grounding_parse.yaml"
    text = path.read_text()
    assert "src/attention_atlas/language/parse.py" in yaml.safe_load(text)["code"]
    composed.clear()
    again = made("a")
    assert not composed and path.read_text() == text and again.graph.text() == first.graph.text()
    made("b")
    assert composed


def test_dvc_yaml_that_does_not_match_is_written_again(manifests: Manifests, tmp_path: Path) -> None:
    manifests.root, root = tmp_path, manifests.root
    assert manifests.write_graph() and not manifests.write_graph()
    assert (tmp_path / "dvc.yaml").read_text() == (ROOT / "dvc.yaml").read_text()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    assert manifests.write_graph()
    manifests.root = root


def test_only_metrics_jobs_read_the_study_itself() -> None:
    """Other jobs get its values by interpolation, so that their manifests need not list the whole study."""
    for path in (ROOT / "src/attention_atlas").rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for block in [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]:
            found = set(re.findall(r"cfg\.study\.(\w+)", ast.unparse(block))) - {"name"}
            measures = isinstance(block, ast.ClassDef) and "MetricTable" in ast.unparse(block).split("\n")[0]
            assert not found or measures or path.stem == "sweeps", f"{path}: {block.name}: {found}"
