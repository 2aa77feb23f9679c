"""The result of a capture: for each attention kind one tensor per statistic, layers stacked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.errors import AtlasError, did_you_mean


@dataclass
class Record:
    """One attention call: its place in the model, and its statistics with the batch as first axis."""

    kind: str
    layer: int
    name: str
    values: dict[str, Tensor]
    groups: list[str] = field(default_factory=list)


@dataclass
class KindResult:
    """All layers of one kind. `values[name]` is (B,L,...) with want.py's axes after L, also as an attribute:
    `result["cross"].mass`. layers: index in the model of each L; names: its modules; groups: names of G."""

    layers: list[int]
    names: list[str]
    values: dict[str, Tensor]
    groups: list[str]

    def __getattr__(self, name: str) -> Tensor:
        values = self.__dict__.get("values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"'{name}' was not captured{did_you_mean(name, values)}")


@dataclass
class Captured(Mapping[str, KindResult]):
    """{kind: KindResult}, in the order of the forward pass; `output` is what the model returned.

    outside: names of selected modules whose attention did not pass through the capture.
    """

    kinds: dict[str, KindResult]
    output: Any = None
    outside: list[str] = field(default_factory=list)

    @classmethod
    def build(cls, records: list[Record], output: Any = None, outside: Sequence[str] = ()) -> Captured:
        by_kind: dict[str, list[Record]] = {}
        for record in records:
            by_kind.setdefault(record.kind, []).append(record)
        kinds = {kind: _stack(kind, found) for kind, found in by_kind.items()}
        return cls(kinds, output, list(outside))

    def __getitem__(self, kind: str) -> KindResult:
        if kind not in self.kinds:
            raise AtlasError(f"capture: no attention of kind '{kind}'{did_you_mean(kind, self.kinds)}")
        return self.kinds[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kinds)

    def __len__(self) -> int:
        return len(self.kinds)

    def example(self, index: int) -> dict[str, dict[str, np.ndarray]]:
        """{kind: {statistic: (L,...) array}} of one batch element, as StatisticsWriter expects."""
        return {
            kind: {name: value[index].float().numpy() for name, value in sorted(found.values.items())}
            for kind, found in self.kinds.items()
        }


def _stack(kind: str, records: list[Record]) -> KindResult:
    records = sorted(records, key=lambda record: record.layer)
    layers, names = [r.layer for r in records], [r.name for r in records]
    values = {}
    for name in records[0].values:
        parts = [record.values[name] for record in records]
        # Learned queries have batch size 1 until they first attend to a batch (Q-Former).
        batch = max(len(part) for part in parts)
        parts = [part.expand(batch, *part.shape[1:]) if len(part) == 1 else part for part in parts]
        if len({part.shape for part in parts}) > 1:
            shapes = ", ".join(sorted({str(tuple(part.shape)) for part in parts}))
            raise AtlasError(
                f"capture: {kind}: {name} has several shapes ({shapes}) in its layers; "
                "capture them separately with layers= or name them with kinds={'a': '*glob*', ...}"
            )
        values[name] = _stacked(parts)
    return KindResult(layers, names, values, records[0].groups)


def _stacked(parts: list[Tensor]) -> Tensor:
    """(B,L,...) on the CPU. From CUDA through pinned memory: a copy to fresh memory is many times slower."""
    if not parts[0].is_cuda:
        return torch.stack(parts, 1).cpu()
    host = torch.empty(len(parts), *parts[0].shape, dtype=parts[0].dtype, pin_memory=True)
    for row, part in zip(host, parts):
        row.copy_(part, non_blocking=True)
    for device in {part.device for part in parts}:
        torch.cuda.synchronize(device)
    return host.transpose(0, 1).clone(memory_format=torch.contiguous_format)
