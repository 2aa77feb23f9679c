"""Which source files of this repository a module imports, directly or indirectly, without running any.

An import counts wherever it is written, at the top of a file or inside a function, but not in a block for the
type checker.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

PACKAGE = "attention_atlas"
# Logging, reporting and memory allocation; no result depends on them.
MACHINERY = (
    *("errors", "progress", "threads", "workflow/memory", "workflow/params", "workflow/parallel"),
    *("workflow/graph", "workflow/track_command", "workflow/tracking", "workflow/tracking_delivery"),
    *("workflow/tracking_origin", "workflow/tracking_runs", "workflow/tracking_store"),
    *("workflow/tracking_title", "workflow/tracking_writer"),
)


class Sources:
    """Which source files a module imports. `root` holds pipeline/ and src/."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._read: dict[Path, _Imports] = {}
        self._files: dict[str, list[Path]] = {}

    def closure(self, modules: Iterable[str]) -> set[Path]:
        """Files of `modules` and of all they import, relative to the root. The name of a class or function
        stands for its module."""
        found: set[Path] = set()
        waiting = [path for module in modules for path in self.files(module)]
        while waiting:
            path = waiting.pop()
            if path in found:
                continue
            found.add(path)
            for name in self.imports(path).names:
                waiting += self.files(name)
            if self.imports(path).all_beside:
                waiting += self.package(path.parent)
        ignored = {Path("src", PACKAGE, f"{name}.py") for name in MACHINERY}
        return found - ignored

    def files(self, name: str) -> list[Path]:
        """The file of a dotted name and the `__init__` of each package above it; none for other packages."""
        if name not in self._files:
            self._files[name] = self._find(name)
        return self._files[name]

    def _find(self, name: str) -> list[Path]:
        parts = name.split(".")
        if parts[0] not in (PACKAGE, "pipeline"):
            return []
        folder = Path("src") if parts[0] == PACKAGE else Path()
        found = []
        for n, part in enumerate(parts):
            if (self.root / folder / part / "__init__.py").is_file():
                folder = folder / part
                found.append(folder / "__init__.py")
                continue
            if (self.root / folder / f"{part}.py").is_file():
                found.append(folder / f"{part}.py")
            elif n and self.imports(folder / "__init__.py").on_request:
                found += self.package(folder)
            break
        return found

    def package(self, folder: Path) -> list[Path]:
        return [p.relative_to(self.root) for p in sorted((self.root / folder).rglob("*.py"))]

    def imports(self, path: Path) -> _Imports:
        if path not in self._read:
            self._read[path] = _Imports(path, (self.root / path).read_text(encoding="utf-8"))
        return self._read[path]


class _Imports:
    """The imports of one file. all_beside: the file is a package that imports every module of its folder by
    name; on_request: a package that imports them when a name is looked up."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text, str(path))

    @cached_property
    def names(self) -> list[str]:
        found: list[str] = []
        for node in _at_run_time(self.tree):
            if isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found += [f"{self._from(node)}.{alias.name}" for alias in node.names]
        return found

    def _from(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        package = self.path.parts[1 if self.path.parts[0] == "src" else 0 : -1]
        above = package[: len(package) - node.level + 1]
        return ".".join([*above, *([node.module] if node.module else [])])

    @cached_property
    def all_beside(self) -> bool:
        inside = (n for f in self.tree.body if not isinstance(f, _FUNCTIONS) for n in ast.walk(f))
        return self.path.name == "__init__.py" and any(map(_imports_by_name, inside))

    @cached_property
    def on_request(self) -> bool:
        return not self.all_beside and any(map(_imports_by_name, ast.walk(self.tree)))


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes except those in blocks for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _at_run_time(child)


def _imports_by_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module")
