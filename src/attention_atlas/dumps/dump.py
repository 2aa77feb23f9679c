"""The dump: run a trained model over examples and write attention.h5 and statistics.h5.

What belongs to a task (building batches, naming axes and groups) is in capture/dumps/<task>.py, chosen by
`_target_` in conf/capture/<name>.yaml.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attention_atlas.capture.want import AXES, check_names
from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.progress import progress
from attention_atlas.recording import AttentionWriter, Axis, StatisticsWriter

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attention_atlas.capture.groups import Groups

ATTENTION, STATISTICS = "attention.h5", "statistics.h5"


@dataclass
class DumpBatch:
    """ids of the examples; inputs for the model (moved to its device); the axes of each example, whose
    lengths give its part of the padded batch; lengths of the padded axes.

    generated: the axis whose rows generate tokens, and the ids (B,T) of these tokens, -1 where the vocabulary
    lacks one. The model's output must then be logits (B,T,V); the axis is stored with log probabilities."""

    ids: list[str]
    inputs: dict[str, Tensor]
    axes: list[dict[str, Axis]]
    lengths: dict[str, int]
    generated: tuple[str, Tensor] | None = None


class DumpTask(Protocol):
    """kinds: {kind: (query axis, key axis)} that the task supports; groups: {key axis: group names}."""

    kinds: dict[str, tuple[str, str]]
    groups: dict[str, list[str]]

    def prepare(self, corpus: Any, features: Any, vocab: Any, config: dict[str, Any]) -> None: ...
    def batches(self, done: Collection[str]) -> Iterator[DumpBatch]: ...
    def count(self, done: Collection[str]) -> int: ...
    def group(self, batch: DumpBatch, axis: str) -> Groups: ...
    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any: ...


@dataclass
class DumpSettings:
    """The `settings` of conf/capture/<name>.yaml. check: validate the capture on the first two examples."""

    statistics: Sequence[str]
    backend: str = "auto"
    convention: str = "used"
    layers: str | Sequence[str] = "*"
    filter: str = "bitshuffle"
    check: bool = True


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
) -> dict[str, float]:
    """Write `out`/attention.h5 (when `attn` is among the statistics) and `out`/statistics.h5 (when anything
    else is). Resumes from `work` after a kill. `task` is prepared, `model` in evaluation mode on `device`."""
    from attention_atlas.capture.engine import Capture

    names = list(settings.statistics)
    plan = Capture(model, ["lse"], layers=settings.layers, convention=settings.convention).sites.planned()
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
    }
    with contextlib.ExitStack() as opened:
        writers: dict[str, Any] = {}
        if "attn" in names:
            writers[ATTENTION] = opened.enter_context(AttentionWriter(work / ATTENTION, **identity))
        if set(names) - {"attn"}:
            writer = StatisticsWriter(work / STATISTICS, **identity, groups=groups)
            writers[STATISTICS] = opened.enter_context(writer)
        seen = _capture(task, model, settings, kinds, writers, device)
    out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    for name in writers:
        sizes[f"{name} MB"] = (work / name).stat().st_size / 1e6
        os.replace(work / name, out / name)
    return {"examples": float(seen), **sizes}


def _capture(
    task: DumpTask,
    model: nn.Module,
    settings: DumpSettings,
    kinds: Mapping[str, tuple[str, str]],
    writers: Mapping[str, Any],
    device: str,
) -> int:
    """Run the model over the examples that the writers lack; returns how many they contain afterwards."""
    from attention_atlas.capture.checks import validate
    from attention_atlas.capture.engine import Capture

    done = set.intersection(*(writer.done for writer in writers.values()))
    # Groups and queries differ between batches.
    capture = Capture(
        model,
        list(settings.statistics),
        groups={},
        backend=settings.backend,
        layers=settings.layers,
        convention=settings.convention,
    )
    seen = 0
    for batch in progress(task.batches(done), "dump", total=task.count(done)):
        inputs = {key: value.to(device) for key, value in batch.inputs.items()}
        if settings.check and not seen:
            few = {key: value[:2] for key, value in inputs.items()}
            validate(
                model, partial(task.forward, model, few), layers=settings.layers, backend=settings.backend
            )
        capture.groups = {kind: task.group(batch, key) for kind, (_, key) in kinds.items()}
        capture.queries = {kind: counted(batch, query) for kind, (query, _) in kinds.items()}
        captured = capture.run(partial(task.forward, model, inputs))
        for row, (id, axes) in enumerate(zip(batch.ids, with_logprobs(batch, captured.output))):
            values = {
                kind: {name: trimmed(name, value, axes, kinds[kind]) for name, value in found.items()}
                for kind, found in captured.example(row).items()
            }
            attn = {kind: found.pop("attn") for kind, found in values.items() if "attn" in found}
            if ATTENTION in writers and id not in writers[ATTENTION].done:
                writers[ATTENTION].write(id, attn, axes)
            if STATISTICS in writers and id not in writers[STATISTICS].done:
                writers[STATISTICS].write(id, values, axes)
            seen += id not in done
    return seen + len(done)


def with_logprobs(batch: DumpBatch, output: Any) -> list[dict[str, Axis]]:
    """The axes of each example; the generated one has the log probability (nats) of each token, NaN for a
    token that the vocabulary lacks. `output`: logits (B,T,V)."""
    if batch.generated is None:
        return batch.axes
    name, ids_BT = batch.generated
    ids_BT1 = ids_BT.to(output.device)[..., None]
    # Rounding can put the logarithm of a certain token just above 0.
    logprob_BT = output.float().log_softmax(-1).gather(-1, ids_BT1.clamp(min=0)).clamp(max=0)
    logprob_BT = logprob_BT.masked_fill(ids_BT1 < 0, float("nan"))[..., 0].cpu().numpy()
    return [
        {**axes, name: replace(axes[name], logprob=logprob_T[: len(axes[name])])}
        for axes, logprob_T in zip(batch.axes, logprob_BT)
    ]


def counted(batch: DumpBatch, axis: str) -> np.ndarray:
    """(B,T) bool: the positions of a padded axis that are not padding."""
    out = np.zeros((len(batch.ids), batch.lengths[axis]), dtype=bool)
    for row, axes in enumerate(batch.axes):
        out[row, : len(axes[axis])] = [role != "pad" for role in axes[axis].roles]
    return out


def trimmed(name: str, value: np.ndarray, axes: dict[str, Axis], kind: tuple[str, str]) -> np.ndarray:
    """One example's part of a padded statistic (L,H,...): its own queries and keys."""
    lengths = {"Q": len(axes[kind[0]]), "K": len(axes[kind[1]])}
    letters = AXES[name]
    cut = [slice(lengths.get(letter)) for letter in letters]
    return value[(..., *cut)]
