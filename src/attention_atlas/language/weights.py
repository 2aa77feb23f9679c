"""Locating weights: an installed data package, a path, or a hub id."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from attention_atlas.errors import AtlasError

_PREFIX = "package:"


def resolve_weights(where: str, field: str, extra: str = "language-data") -> str:
    """The path or hub id for `where`.

    `package:NAME/FOLDER` is a folder or file inside an installed package, whose code is not executed;
    anything else is returned unchanged if it exists on disk or looks like a hub id. `field` and `extra`,
    which installs the package, are named in the AtlasError for a missing package or path.
    """
    if where.startswith(_PREFIX):
        package, _, inner = where.removeprefix(_PREFIX).partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise AtlasError(
                f"{field}: the package '{package}' is not installed; "
                f"pip install 'attention-atlas[{extra}]', or give a path or hub id"
            )
        path = Path(next(iter(spec.submodule_search_locations))) / inner
        if not path.exists():
            raise AtlasError(
                f"{field}: '{package}' does not contain '{inner}'; correct the name or give a path"
            )
        return str(path)
    if not Path(where).expanduser().exists() and (where.startswith((".", "/", "~")) or where.count("/") > 1):
        raise AtlasError(f"{field}: '{where}' does not exist; correct the path")
    return str(Path(where).expanduser()) if Path(where).expanduser().exists() else where
