"""One file in shards: `attention-00003-of-00064.h5`, and an index that reads as one file.

The index is a small HDF5 file of the whole's own name beside its shards. It has the header of attention.h5 or
statistics.h5, in `/examples` an external link for each example, and in `/shards` the shards. AttentionStore
and StatisticsStore read it like a whole file, and so does any other HDF5 tool.

    python -m attention_atlas.recording.index data/attention/grounding

writes the indices of a folder. The dump does this itself when its last shard is complete.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py

from attention_atlas.errors import AtlasError
from attention_atlas.files import atomic_path, hdf5_file
from attention_atlas.recording.header import (
    WORK,
    assemble,
    differences,
    groups_of,
    identity,
    kinds_of,
    write_header,
)

NAME = re.compile(r"(?P<stem>.+)-(?P<shard>\d{5,})-of-(?P<shards>\d{5,})\.h5(?P<part>\.part)?")


def shard_path(path: str | Path, shard: int, shards: int) -> Path:
    """The file of shard number `shard`, from 0, of `path`; `path` itself if it is the only one.

    >>> shard_path("data/attention.h5", 3, 64).name
    'attention-00003-of-00064.h5'
    """
    path = Path(path)
    if shards == 1:
        return path
    return path.with_name(f"{path.stem}-{shard:05d}-of-{shards:05d}{path.suffix}")


def missing_shards(path: str | Path, shards: int) -> list[Path]:
    """The shards of `path` that are not complete."""
    return [p for p in (shard_path(path, i, shards) for i in range(shards)) if not p.exists()]


def check_place(path: Path) -> None:
    """Raise AtlasError if `path` is a whole file, which the index of its shards would replace."""
    if path.exists() and not _is_index(path):
        raise AtlasError(f"{path}: is a whole file, which the index of the shards would replace; move it")


def write_index(path: str | Path, shards: int, partial: bool = False, copy: bool = False) -> int:
    """Write the index `path` of its shards; returns the number of examples.

    partial: leave out the shards that are not complete; the index is then marked incomplete. copy: write a
    whole file instead of an index, with the same bytes as a dump without shards.
    Raises AtlasError for a missing shard, shards of different runs, or an example in two of them.
    """
    path = Path(path)
    missing = missing_shards(path, shards)
    if missing and not partial:
        raise AtlasError(
            f"{missing[0]}: shard: is not complete, nor are {len(missing) - 1} others of {shards}; run them, "
            "or index those that are there (--partial)"
        )
    check_place(path)
    found = [p for p in (shard_path(path, i, shards) for i in range(shards)) if p not in missing]
    if not found:
        raise AtlasError(f"{path}: shards: none of {shards} is complete; run them")
    where: dict[str, Path] = {}
    first: dict[str, str] = {}
    for shard in found:
        for id in _read(shard, first):
            if id in where:
                raise AtlasError(
                    f"{shard}: id: '{id}' is also in {where[id].name}; delete both, run them again"
                )
            where[id] = shard
    with atomic_path(path) as temporary:
        with h5py.File(found[0], "r") as shard, hdf5_file(temporary) as (file, _):
            attrs = {name: shard.attrs[name] for name in shard.attrs if name not in (WORK, "complete")}
            write_header(file, attrs, kinds_of(shard), groups_of(shard))
        if copy:
            assemble(temporary, {id: (shard, f"/examples/{id}") for id, shard in where.items()})
        else:
            _link(temporary, where, found, complete=not missing)
    return len(where)


def _is_index(path: Path) -> bool:
    try:
        with h5py.File(path, "r") as file:
            return "shards" in file
    except OSError:
        return False


def _read(shard: Path, first: dict[str, str]) -> list[str]:
    """The ids of a shard, whose identity must be `first`; an empty `first` is filled."""
    try:
        with h5py.File(shard, "r") as file:
            own, ids = identity(file), sorted(file["examples"])
    except (OSError, KeyError) as error:
        raise AtlasError(f"{shard}: not readable ({error}); delete it and run its shard again") from None
    for name, one, other in differences(first, own) if first else ():
        raise AtlasError(
            f"{shard}: {name}: '{other}', but '{one}' in the first shard; delete the shards of other runs"
        )
    first.update(own)
    return ids


def _link(path: Path, where: dict[str, Path], shards: Sequence[Path], complete: bool) -> None:
    with hdf5_file(path, "r+") as (file, _):
        examples = file.create_group("examples")
        for id in sorted(where):
            examples[id] = h5py.ExternalLink(where[id].name, f"/examples/{id}")
        file["shards/name"] = [shard.name.encode() for shard in shards]
        file["shards/bytes"] = [shard.stat().st_size for shard in shards]
        file.attrs["complete"] = complete


def sharded(folder: Path) -> dict[Path, int]:
    """{whole file: number of shards} of a folder. Raises AtlasError without shards, or for two numbers."""
    found: dict[Path, set[int]] = {}
    for entry in sorted(folder.glob("*-of-*.h5*")):
        if match := NAME.fullmatch(entry.name):
            found.setdefault(folder / f"{match['stem']}.h5", set()).add(int(match["shards"]))
    if not found:
        raise AtlasError(f"{folder}: no shards here; give the folder that a dump with capture.shards wrote")
    for path, numbers in found.items():
        if len(numbers) > 1:
            several = " and of ".join(map(str, sorted(numbers)))
            raise AtlasError(f"{path}: shards: of {several}; delete those of all numbers but one")
    return {path: numbers.pop() for path, numbers in found.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 after a one-line error."""
    parser = argparse.ArgumentParser(prog="python -m attention_atlas.recording.index", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--partial", action="store_true", help="leave out shards that are not complete")
    parser.add_argument("--copy", action="store_true", help="copy the examples into one whole file")
    args = parser.parse_args(arguments)
    try:
        for path, shards in sharded(args.folder).items():
            missing = len(missing_shards(path, shards))
            count = write_index(path, shards, args.partial, args.copy)
            print(f"{path}: {count} examples in {shards - missing} of {shards} shards")
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
