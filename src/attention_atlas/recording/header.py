"""The header of attention.h5 and statistics.h5: attributes, kinds and groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import h5py

from attention_atlas.files import hdf5_file

WORK = "work"  # attribute of a shard: digest of code and inputs, the same in all shards


def write_header(
    file: h5py.File,
    attrs: Mapping[str, str],
    kinds: Mapping[str, tuple[str, str]],
    groups: Mapping[str, Sequence[str]],
) -> None:
    """Everything but the examples, in an order that does not depend on that of the arguments."""
    for name in sorted(attrs):
        file.attrs[name] = attrs[name]
    file.attrs["complete"] = False
    for kind, (query_axis, key_axis) in sorted(kinds.items()):
        group = file.create_group(f"kinds/{kind}")
        group.attrs["query_axis"], group.attrs["key_axis"] = query_axis, key_axis
    for axis, names in sorted(groups.items()):
        file.create_dataset(f"groups/{axis}", data=names, dtype=h5py.string_dtype())


def kinds_of(file: h5py.File) -> dict[str, tuple[str, str]]:
    """{kind: (query axis, key axis)}."""
    pairs = {kind: group.attrs for kind, group in file["kinds"].items()}
    return {kind: (str(at["query_axis"]), str(at["key_axis"])) for kind, at in pairs.items()}


def groups_of(file: h5py.File) -> dict[str, list[str]]:
    """{key axis: names of its groups}."""
    return {axis: [n.decode() for n in names[()]] for axis, names in file.get("groups", {}).items()}


def identity(file: h5py.File) -> dict[str, str]:
    """Attributes, kinds and groups, which differ between runs."""
    found = {name: file.attrs[name] for name in file.attrs if name != "complete"}
    found |= {f"kinds/{kind}": " <- ".join(axes) for kind, axes in kinds_of(file).items()}
    return found | {f"groups/{axis}": ", ".join(names) for axis, names in groups_of(file).items()}


def differences(a: Mapping[str, str], b: Mapping[str, str]) -> list[tuple[str, str | None, str | None]]:
    """(name, value in a, value in b) where they differ; None: missing."""
    return [(n, a.get(n), b.get(n)) for n in sorted(a.keys() | b.keys()) if a.get(n) != b.get(n)]


def assemble(path: Path, parts: Mapping[str, tuple[Path, str]]) -> None:
    """Copy examples {id: (file, place in it)}, sorted by id and without decompressing, into the header at
    `path`, and mark it complete. Raises OSError on a full disk."""
    with hdf5_file(path, "r+") as (file, check):
        examples = file.create_group("examples")
        for id in sorted(parts):
            part, place = parts[id]
            with h5py.File(part, "r") as source:
                source.copy(place, examples, id)
            check()
        file.attrs["complete"] = True
