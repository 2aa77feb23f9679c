"""Lists of numbers as batches, padded rows of ids, and batches on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from attention_atlas.language.vocabulary import PAD

Item = TypeVar("Item")
IGNORED = -100  # label of a position that does not count


def cut(items: Sequence[Item], size: int) -> list[list[Item]]:
    """Consecutive lists of `size` items; the last may be shorter."""
    return [list(items[i : i + size]) for i in range(0, len(items), size)]


def pooled(
    count: int, size: int, seed: Sequence[int], length: Callable[[int], int], pool: int = 20
) -> list[list[int]]:
    """A shuffled epoch of 0..count-1 in batches.

    Within pools of `pool` batches (0: one pool) the examples are sorted by length, to keep padding low; then
    the batches are shuffled. Depends only on the arguments.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(count).tolist()
    parts = cut(shuffled, pool * size) if pool else [shuffled]
    batches = [batch for part in parts for batch in cut(sorted(part, key=length), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def padded_ids(rows: Sequence[Sequence[Any]], filler: int = PAD) -> Tensor:
    """`ids_BT` of rows of different lengths, filled at the right."""
    ids_BT = torch.full((len(rows), max(map(len, rows))), filler)
    for b, row in enumerate(rows):
        ids_BT[b, : len(row)] = torch.tensor(row)
    return ids_BT


def next_tokens(rows: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """`ids_BT`: all but the last token, padded at the right; `labels_BT`: the token that follows each."""
    return {
        "ids_BT": padded_ids([row[:-1] for row in rows], pad),
        "labels_BT": padded_ids([row[1:] for row in rows], IGNORED),
    }


def to_device(batch: Any, device: Any) -> Any:
    """All tensors of a batch, also in mappings and sequences, on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(value, device) for value in batch)
    return batch
