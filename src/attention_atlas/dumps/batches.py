"""The batches of a dump: their preparation by a task, and the forward pass over each."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from attention_atlas.capture.want import AXES
from attention_atlas.recording import Axis

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attention_atlas.capture.groups import Groups
    from attention_atlas.dumps.dump import DumpSettings

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

    def first(self, count: int) -> DumpBatch:
        """The first `count` examples, still padded to the lengths of the batch."""
        if count >= len(self.ids):
            return self  # also if the first axis of an input is not that of examples
        inputs = {name: value[:count] for name, value in self.inputs.items()}
        generated = self.generated and (self.generated[0], self.generated[1][:count])
        return DumpBatch(self.ids[:count], inputs, self.axes[:count], self.lengths, generated)


class DumpTask(Protocol):
    """kinds: {kind: (query axis, key axis)} that the task supports; groups: {key axis: group names}; names:
    {kind: glob over modules} (see Capture) for models whose modules do not name their kind.

    `plan` and `batch` need `prepare`; `group` and `forward` do not."""

    kinds: dict[str, tuple[str, str]]
    groups: dict[str, list[str]]
    names: dict[str, str]

    def prepare(self, corpus: Any, features: Any, vocab: Any, config: dict[str, Any]) -> None: ...
    def plan(self) -> list[list[str]]: ...
    def batch(self, ids: list[str]) -> DumpBatch: ...
    def group(self, batch: DumpBatch, axis: str) -> Groups: ...
    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any: ...


class Planned:
    """Base of the tasks. plan: the ids of each batch. It depends on the examples alone, not on which are
    done or on the number of shards, because rounding depends on the batch."""

    names: dict[str, str] = {}  # noqa: RUF012  (tasks replace it, and none changes it)

    def plan(self) -> list[list[str]]:
        raise NotImplementedError

    def batch(self, ids: list[str]) -> DumpBatch:
        raise NotImplementedError

    def batches(self, done: Collection[str] = ()) -> Iterator[DumpBatch]:
        """All batches except those whose examples are all done."""
        for ids in self.plan():
            if any(id not in done for id in ids):
                yield self.batch(ids)


class Found(NamedTuple):
    """The stored values of one example: {kind: {statistic: (L,...) array}} and its axes."""

    id: str
    values: dict[str, dict[str, np.ndarray]]
    axes: dict[str, Axis]


def part_of(file: str, values: dict[str, dict[str, np.ndarray]]) -> dict[str, Any]:
    """The values of an example in one of the two files: {kind: attn}, or {kind: {statistic: array}}."""
    if file == ATTENTION:
        return {kind: of_kind["attn"] for kind, of_kind in values.items() if "attn" in of_kind}
    return {kind: {n: v for n, v in of_kind.items() if n != "attn"} for kind, of_kind in values.items()}


class Passes:
    """Forward passes of one model with a capture. The capture is validated on the first two examples of the
    first batch (settings.check). kinds: those that `settings.layers` selects."""

    def __init__(
        self,
        task: DumpTask,
        model: nn.Module,
        settings: DumpSettings,
        kinds: Mapping[str, tuple[str, str]],
        device: str,
    ) -> None:
        from attention_atlas.capture.engine import Capture

        self.task, self.model, self.settings, self.kinds, self.device = task, model, settings, kinds, device
        self.checked = not settings.check
        # Groups and queries differ between batches.
        self.capture = Capture(
            model,
            list(settings.statistics),
            groups={},
            backend=settings.backend,
            layers=settings.layers,
            kinds=task.names,
            convention=settings.convention,
        )

    def __call__(self, batch: DumpBatch) -> list[Found]:
        inputs = self._placed(batch)
        if not self.checked:
            self._check(self._placed(batch.first(2)))
        self.capture.groups = {kind: self.task.group(batch, key) for kind, (_, key) in self.kinds.items()}
        self.capture.queries = {kind: counted(batch, query) for kind, (query, _) in self.kinds.items()}
        captured = self.capture.run(partial(self.task.forward, self.model, inputs))
        # Hybrid models have no attention in some layers, and `settings.layers` may choose among them.
        numbers = {kind: np.array(result.layers) for kind, result in captured.items()}
        some = {kind: n for kind, n in numbers.items() if (n != np.arange(len(n))).any()}
        found = []
        for row, (id, axes) in enumerate(zip(batch.ids, with_logprobs(batch, captured.output))):
            values = {
                kind: {name: trimmed(name, value, axes, self.kinds[kind]) for name, value in of_kind.items()}
                for kind, of_kind in captured.example(row).items()
            }
            for kind, layers in some.items():
                values[kind]["layers"] = layers
            found.append(Found(id, values, axes))
        return found

    def _placed(self, batch: DumpBatch) -> dict[str, Tensor]:
        return {key: value.to(self.device) for key, value in batch.inputs.items()}

    def _check(self, few: dict[str, Tensor]) -> None:
        from attention_atlas.capture.checks import validate

        run = partial(self.task.forward, self.model, few)
        validate(self.model, run, layers=self.settings.layers, backend=self.settings.backend)
        self.checked = True


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
