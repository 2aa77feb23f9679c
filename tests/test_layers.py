"""Which package may import which: a library that knows no study below, the studies above; no cycles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from attention_atlas.workflow.manifests import Sources

SRC = Path("src/attention_atlas")
# Modules at the top of the package, which import nothing but errors.
BASE = ("errors", "files", "progress", "devices", "threads")
# Each package may import those before it. `capture` and `alignments` are usable without all others.
LAYERS = (
    ("capture", "alignments", "workflow"),
    ("recording", "data"),
    ("language",),
    ("measures", "regions"),
    ("synthetic", "linking", "models", "plotting"),
    ("training",),
    ("dumps", "reporting"),
    ("studies",),
)
ONLY_ERRORS = ("capture", "alignments")
ORDER = {package: n for n, layer in enumerate(LAYERS) for package in layer}
SOURCES = Sources(ROOT)


def imported(path: Path) -> set[str]:
    """Packages and base modules of attention_atlas that a file imports, at its top or in a function."""
    files = [SOURCES.files(name)[-1] for name in SOURCES.imports(path).names if SOURCES.files(name)]
    return {room(file) for file in files if file != SRC / "__init__.py"}


def room(path: Path) -> str:
    return path.relative_to(SRC).parts[0].removesuffix(".py")


def modules(folder: Path = SRC) -> list[Path]:
    return [p.relative_to(ROOT) for p in sorted((ROOT / folder).rglob("*.py"))]


def test_every_package_has_its_layer() -> None:
    assert {room(p) for p in modules() if p != SRC / "__init__.py"} == {*ORDER, *BASE}


@pytest.mark.parametrize("package", ORDER)
def test_a_package_imports_only_lower_ones(package: str) -> None:
    for path in modules(SRC / package):
        allowed = {package, *BASE, *(p for p, n in ORDER.items() if n < ORDER[package])}
        if package in ONLY_ERRORS:
            allowed = {package, "errors"}
        assert imported(path) <= allowed, path


@pytest.mark.parametrize("module", BASE)
def test_base_modules_import_errors_only(module: str) -> None:
    assert imported(SRC / f"{module}.py") <= {"errors"}


def test_a_study_imports_no_other_study() -> None:
    """But for what several share, which moves down when a third study needs it."""
    for path in modules(SRC / "studies"):
        parts = path.relative_to(SRC).parts
        for name in SOURCES.imports(path).names:
            for file in SOURCES.files(name):
                other = file.relative_to(SRC).parts
                if other[0] == "studies" and len(other) > 2:
                    assert other[1] == parts[1], f"{path} imports {file}"


ALONE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root in REFUSED:
            raise ImportError(f"{root} is not installed")

REFUSED = set(sys.argv[1].split(","))
sys.meta_path.insert(0, Refuse())
import torch
from torch import nn
from attention_atlas.capture import Capture, validate
from attention_atlas.alignments.cosine import Cosine

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.attend = nn.MultiheadAttention(16, 2, batch_first=True)
    def forward(self, x):
        return self.attend(x, x, x)[0]

torch.manual_seed(0)
x = torch.randn(2, 5, 16)
found = Capture(Model().eval(), ["entropy"])(x)
(kind,) = found.values()
assert kind.entropy.shape[:1] == (2,), kind.entropy.shape
print("captured")
"""


def test_the_library_needs_torch_and_numpy_only() -> None:
    """As after `pip install attention-atlas`: whatever the extras install is not there."""
    refused = "hydra,omegaconf,dvc,mlflow,h5py,pandas,spacy,transformers,accelerate,safetensors,matplotlib,scipy,PIL"
    run = subprocess.run([sys.executable, "-c", ALONE, refused], capture_output=True, text=True)
    assert run.stdout.strip() == "captured", run.stderr[-2000:]
