"""Lists of names pickled by Python 2 (`filenames.pickle`), read without executing pickled code."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

from attention_atlas.errors import AtlasError


class _PlainUnpickler(pickle.Unpickler):
    """A pickle executes code only through the names it looks up; a list of strings looks up none."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_names(path: Path) -> list[str]:
    """Names in file order, from a pickled list or, with any other suffix, a text file with one name per line.

    Raises AtlasError for a missing or damaged file, a pickle that is not a plain list of strings, an empty
    list, or a name that occurs twice or points outside its folder.
    """
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    try:
        if path.suffix in (".pickle", ".pkl"):
            with open(path, "rb") as file:
                names = _PlainUnpickler(file, encoding="utf-8").load()
        else:
            names = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except Exception as error:  # damaged pickles raise almost any exception
        raise AtlasError(f"{path}: no list of names ({error}); write one name per line to a .txt") from None
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise AtlasError(f"{path}: no list of names; write one name per line to a .txt")
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise AtlasError(f"{path}: '{twice}' occurs twice; keep one of them")
    for name in names:
        if not name.isprintable():
            raise AtlasError(f"{path}: {name!r} is not a name; write one name per line to a .txt")
        if name.startswith(("/", "\\")) or ".." in Path(name).parts:
            raise AtlasError(f"{path}: '{name}' is outside the folder of images; correct the name")
    return names
