"""What a stage's manifest lists: the files it can import, and the configuration that it computes with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.compose import compose
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
    def config(*overrides: str) -> dict[str, Any]:
        return stage_config(compose(ROOT, "train", overrides), "train")

    plain = config()
    assert plain["device"] == "auto" and plain["train"]["loop"] and "world" not in plain["data"]
    for change in (
        "workers=3",
        "device.plot=cpu",
        "data.world.image_size=99",
        "worlds=[]",
        "modality.data=x",
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


def test_models_that_a_stage_loads_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    manifests = Manifests(ROOT)
    code = manifests.manifest("modality_dump")["code"]
    models = {name for name in code if name.startswith("src/attention_atlas/models/")}
    names = {Path(name).stem for name in models}
    assert {"gpt2", "captioner"} <= names or len(names) > 3, names
    assert not {"mac", "scan", "m4c"} & names
    assert "src/attention_atlas/models/gpt2.py" not in manifests.manifest("grounding_dump")["code"]


def test_configurations_are_composed_again_only_if_something_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[str] = []

    class Few(Manifests):
        def __init__(self, digest: str) -> None:
            self.root, self._digest, self._configs = ROOT, digest, {}
            self.commands, self.sources = {"parse": "python -m pipeline.parse data=rooms"}, Sources(ROOT)
            self.producers: dict[str, list[str]] = {"parse": []}

        def digest(self) -> str:
            return self._digest

        def _compose(self, script: str, name: str) -> dict[str, Any]:
            composed.append(name)
            return super()._compose(script, name)

    monkeypatch.chdir(ROOT)
    out = tmp_path / "manifests"
    (out / "old").mkdir(parents=True)
    Few("a").write(out)
    first = (out / "parse.yaml").read_text()
    assert "src/attention_atlas/language/parse.py" in yaml.safe_load(first)["code"]
    Few("a").write(out)
    assert composed == ["parse"] and (out / "parse.yaml").read_text() == first
    Few("b").write(out)
    assert composed == ["parse", "parse"] and not (out / "old").exists()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("python -m pipeline.parse data=no_such", "dvc.yaml: parse: conf: .*no_such"),
        ("cat file", "dvc.yaml: parse: cmd: must be python -m pipeline"),
    ],
)
def test_a_stage_that_does_not_compose(monkeypatch: pytest.MonkeyPatch, command: str, says: str) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        "attention_atlas.workflow.manifests._stages", lambda root: ({"parse": command}, {"parse": []})
    )
    with pytest.raises(ConfigError, match=says):
        Manifests(ROOT).config("parse")
