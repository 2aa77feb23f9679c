"""The dump: run a trained model over examples and write attention.h5 and statistics.h5, whole or as one of
several shards.

Task-specific code (building batches, naming axes and groups) is in dumps/<task>.py, chosen by `_target_` in
conf/capture/<name>.yaml.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attention_atlas.capture.want import check_names
from attention_atlas.dumps.batches import (
    ATTENTION,
    STATISTICS,
    DumpBatch,
    DumpTask,
    Found,
    Passes,
    part_of,
)
from attention_atlas.dumps.sizes import print_sizes
from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.files import link
from attention_atlas.progress import progress
from attention_atlas.recording import AttentionWriter, StatisticsWriter
from attention_atlas.recording.index import check_place, missing_shards, shard_path, write_index

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ATTENTION", "STATISTICS", "DumpBatch", "DumpSettings", "Shard", "dump", "read_settings"]

# (task, planned batches, settings, kinds) -> the results of each batch, in any order.
Engine = Callable[
    [DumpTask, list[list[str]], "DumpSettings", Mapping[str, tuple[str, str]]], Iterable[list[Found]]
]


@dataclass
class DumpSettings:
    """The `settings` of conf/capture/<name>.yaml. check: validate the capture on the first two examples."""

    statistics: Sequence[str]
    backend: str = "auto"
    convention: str = "used"
    layers: str | Sequence[str] = "*"
    filter: str = "bitshuffle"
    check: bool = True

    def files(self) -> list[str]:
        """The files that hold the statistics."""
        others = set(self.statistics) - {"attn"}
        return [*([ATTENTION] if "attn" in self.statistics else []), *([STATISTICS] if others else [])]


@dataclass
class Shard:
    """Number `shard`, from 0, of `shards` parts of the planned batches: every `shards`-th one. work: digest
    of code and inputs, which all shards must have in common."""

    shard: int = 0
    shards: int = 1
    work: str = ""

    def __post_init__(self) -> None:
        for name in ("shards", "shard"):
            if not isinstance(value := getattr(self, name), int):
                raise ConfigError(f"capture.{name}: must be a whole number, not {value!r}")
        if self.shards < 1:
            raise ConfigError(f"capture.shards: must be at least 1, not {self.shards}")
        if not 0 <= self.shard < self.shards:
            raise ConfigError(
                f"capture.shard: {self.shard} is outside 0..{self.shards - 1}; "
                f"all of them: 'capture.shard=range({self.shards})' with -m"
            )


def read_settings(values: Mapping[str, Any]) -> DumpSettings:
    """From conf/capture/<name>.yaml. Raises ConfigError for an unknown setting."""
    names = [f.name for f in fields(DumpSettings)]
    for name in values:
        if name not in names:
            raise ConfigError(f"settings: {name}: no such setting{did_you_mean(str(name), names)}")
    settings = DumpSettings(**{str(k): v for k, v in values.items()})
    check_names(settings.statistics)
    return settings


def dump(
    task: DumpTask,
    model: nn.Module,
    settings: DumpSettings,
    out: Path,
    work: Path,
    *,
    model_name: str,
    config_hash: str,
    device: str = "cpu",
    shard: Shard | None = None,
    engine: Engine | None = None,
) -> dict[str, float]:
    """Write `out`/attention.h5 (when `attn` is among the statistics) and `out`/statistics.h5 (when anything
    else is). Resumes from `work` after a kill. `task` is prepared, `model` in evaluation mode on `device`.

    shard: write one shard of each file to `out`, and their index once all shards are there (recording/
    index.py); it resumes from `out`, and `work` is not used. engine: runs the batches (default: one after
    another in this process).
    """
    from attention_atlas.capture.engine import Capture

    shard = shard or Shard()
    sites = Capture(model, ["lse"], layers=settings.layers, convention=settings.convention).sites
    plan = list(task.names) or sites.planned()
    unknown = [kind for kind in plan if kind not in task.kinds]
    if unknown or not plan:
        raise ConfigError(
            f"layers: '{settings.layers}' gives {plan or 'no kind'} of {model_name}, but the "
            f"dump knows {', '.join(task.kinds)}; choose a model with attention, or a dump for it"
        )
    kinds = {kind: task.kinds[kind] for kind in plan}
    groups = {axis: task.groups[axis] for axis in dict.fromkeys(key for _, key in kinds.values())}
    identity: dict[str, Any] = {
        "model": model_name,
        "config_hash": config_hash,
        "convention": settings.convention,
        "kinds": kinds,
        "filter": settings.filter,
        "work": shard.work,
    }
    files = settings.files()
    place = work if shard.shards == 1 else out
    place.mkdir(parents=True, exist_ok=True)
    paths = {name: shard_path(place / name, shard.shard, shard.shards) for name in files}
    if shard.shards > 1:
        for name in files:
            check_place(out / name)
    with contextlib.ExitStack() as opened:
        writers: dict[str, Any] = {}
        if ATTENTION in paths:
            writers[ATTENTION] = opened.enter_context(AttentionWriter(paths[ATTENTION], **identity))
        if STATISTICS in paths:
            writer = StatisticsWriter(paths[STATISTICS], **identity, groups=groups)
            writers[STATISTICS] = opened.enter_context(writer)
        done = set.intersection(*(writer.done for writer in writers.values()))
        planned = task.plan()[shard.shard :: shard.shards]
        for id in itertools.chain.from_iterable(planned):
            next(iter(writers.values())).check_id(id)
        todo = [ids for ids in planned if any(id not in done for id in ids)]
        passes = Passes(task, model, settings, kinds, device)
        if todo:
            print_sizes(task, passes, todo, done, writers, place)
        if engine:
            with contextlib.suppress(RuntimeError, ValueError):  # spread by accelerate, or quantised
                model.cpu()  # the engine's models may need the memory of the GPU
        found = engine(task, todo, settings, kinds) if engine and todo else _here(task, passes, todo)
        for results in progress(found, "dump", total=len(todo)):
            _write(results, writers)
    sizes = {f"{name} MB": path.stat().st_size / 1e6 for name, path in paths.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, path in paths.items():
        if shard.shards == 1:
            link(path, out / name)
        elif not missing_shards(out / name, shard.shards):
            write_index(out / name, shard.shards)
    return {"examples": float(sum(map(len, planned))), **sizes}


def _here(task: DumpTask, passes: Passes, todo: list[list[str]]) -> Iterator[list[Found]]:
    for ids in todo:
        yield passes(task.batch(ids))


def _write(results: list[Found], writers: Mapping[str, Any]) -> None:
    """Add to each file the examples that it lacks."""
    for id, values, axes in results:
        for name, writer in writers.items():
            if id not in writer.done:
                writer.write(id, part_of(name, values), axes)
