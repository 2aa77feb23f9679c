"""Which package may import which: a library that knows no study below, the studies above; no cycles."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from attention_atlas.workflow.sources import Sources

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
    ("dumps", "reporting", "look"),
    ("ground", "interventions"),
    ("studies",),
    ("__main__",),
)
ONLY_ERRORS = ("capture", "alignments")
ORDER = {package: n for n, layer in enumerate(LAYERS) for package in layer}
SOURCES = Sources(ROOT)


def imported(path: Path) -> set[str]:
    """Packages and base modules of attention_atlas that a file imports: at its top, in a function, or for the
    type checker."""
    nodes = [n for n in ast.walk(SOURCES.imports(path).tree) if isinstance(n, ast.ImportFrom)]
    names = SOURCES.imports(path).names + [
        f"{n.module}.{a.name}" for n in nodes if not n.level for a in n.names
    ]
    files = [SOURCES.files(name)[-1] for name in names if SOURCES.files(name)]
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
    """What two of them share belongs into a package below."""
    for path in modules(SRC / "studies"):
        parts = path.relative_to(SRC).parts
        for name in SOURCES.imports(path).names:
            for file in SOURCES.files(name):
                other = file.relative_to(SRC).parts
                if other[0] == "studies" and len(other) > 2:
                    assert other[1] == parts[1], f"{path} imports {file}"


def test_no_file_imports_one_that_imports_it_back() -> None:
    import networkx

    arrows = networkx.DiGraph()
    for path in modules():
        for name in SOURCES.imports(path).names:
            for file in SOURCES.files(name)[-1:]:
                if file != path and file.name != "__init__.py" and path.name != "__init__.py":
                    arrows.add_edge(str(path), str(file))
    circles = [sorted(c) for c in networkx.strongly_connected_components(arrows) if len(c) > 1]
    assert arrows.number_of_edges() > 500 and not circles


def test_no_source_file_is_longer_than_a_reader_keeps_in_mind() -> None:
    long = {str(p): n for p in modules() if (n := len((ROOT / p).read_text().splitlines())) > 300}
    assert not long, "split them, or give the reason here"


EXTRAS = (
    *("hydra", "omegaconf", "dvc", "mlflow", "h5py", "pandas", "spacy", "transformers", "accelerate"),
    *("safetensors", "matplotlib", "scipy", "PIL", "tqdm", "yaml"),
)
ALONE = """
import sys

sys.modules.update(dict.fromkeys(sys.argv[1:]))  # importing them fails as if they were not installed
import torch
from torch import nn
from attention_atlas.alignments.cosine import Cosine
from attention_atlas.capture import Capture
from attention_atlas.capture.seam import attend

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.cosine = Cosine(8)
    def forward(self, x):
        return attend(self, x, x, x)

x_BHTD = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
(kind,) = Capture(Model().eval(), ["entropy"])(x_BHTD).values()
weights = (x_BHTD @ x_BHTD.mT / 8**0.5).softmax(-1)
entropy = -(weights * weights.log()).sum(-1)
assert torch.allclose(torch.as_tensor(kind.entropy).flatten(), entropy.flatten(), atol=1e-4)
print("captured")
"""


def test_the_library_needs_torch_and_numpy_only() -> None:
    """As after `pip install attention-atlas`: the packages of the extras are missing."""
    run = subprocess.run([sys.executable, "-c", ALONE, *EXTRAS], capture_output=True, text=True)
    assert run.stdout.strip() == "captured", run.stderr[-2000:]
