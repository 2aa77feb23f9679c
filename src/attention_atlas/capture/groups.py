"""Groups of source positions whose attention is summed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from attention_atlas.capture.roles import ROLES
from attention_atlas.errors import AtlasError


@dataclass
class Groups:
    """names: G strings; member_BKG: bool, whether a key belongs to a group (it may belong to several)."""

    names: list[str]
    member_BKG: Tensor
    _on: tuple[Tensor, Tensor] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.names = [str(name) for name in self.names]
        self.member_BKG = torch.as_tensor(self.member_BKG).bool()
        if self.member_BKG.ndim != 3 or self.member_BKG.shape[-1] != len(self.names):
            raise AtlasError(
                f"groups: shape {tuple(self.member_BKG.shape)} for {len(self.names)} names; give (B, K, G)"
            )
        self._on = self.member_BKG, self.member_BKG
        if len(set(self.names)) != len(self.names):
            raise AtlasError(f"groups: names repeat ({', '.join(self.names)}); make them unique")

    @classmethod
    def of(cls, labels_BK: Sequence[Sequence[str | None]], names: Iterable[str] | None = None) -> Groups:
        """One group per label; None belongs to no group. `names` sets their order (default: sorted)."""
        rows = [list(row) for row in labels_BK]
        if len({len(row) for row in rows}) > 1:
            raise AtlasError("groups: rows of different length; pad them with None")
        found = sorted({label for row in rows for label in row if label is not None})
        ordered = list(names) if names is not None else found
        unknown = set(found) - set(ordered)
        if unknown:
            raise AtlasError(f"groups: labels {sorted(unknown)} are not among the names {ordered}")
        member = [[[label == name for name in ordered] for label in row] for row in rows]
        return cls(ordered, torch.tensor(member, dtype=torch.bool).reshape(len(rows), -1, len(ordered)))

    @classmethod
    def of_spans(cls, spans: Mapping[str, Sequence[Sequence[tuple[int, int]]]], keys: int) -> Groups:
        """Named spans of positions, e.g. phrases: {name: per batch element a list of [start, end)}."""
        batch = len(next(iter(spans.values())))
        member = torch.zeros(batch, keys, len(spans), dtype=torch.bool)
        for g, (name, rows) in enumerate(spans.items()):
            if len(rows) != batch:
                raise AtlasError(
                    f"groups: '{name}' has {len(rows)} rows, others {batch}; give one per element"
                )
            for b, row in enumerate(rows):
                for start, end in row:
                    if not 0 <= start <= end <= keys:
                        raise AtlasError(f"groups: '{name}': span [{start}, {end}) is outside 0..{keys}")
                    member[b, start:end, g] = True
        return cls(list(spans), member)

    def on(self, device: torch.device, batch: int) -> Tensor:
        """member_BKG on `device` for `batch` elements: the same tensor as long as nothing changes."""
        given, made = self._on
        if given is not self.member_BKG or made.device != device or len(made) != batch:
            made = self.member_BKG.to(device).expand(batch, -1, -1)
            self._on = self.member_BKG, made
        return made

    def __add__(self, other: Groups) -> Groups:
        return Groups(self.names + other.names, torch.cat([self.member_BKG, other.member_BKG], -1))


def role_groups(roles_BK: Sequence[Sequence[str]]) -> Groups:
    """One group per role that occurs; padding belongs to no group."""
    present = {role for row in roles_BK for role in row}
    names = [role for role in ROLES if role in present and role != "pad"]
    return Groups.of([[None if r == "pad" else r for r in row] for row in roles_BK], names)


def word_of_tokens(offsets_T2: Sequence[tuple[int, int]], words_W2: Sequence[tuple[int, int]]) -> list[int]:
    """Index of the word that contains each sub-word token, from character offsets; −1 for none.

    Offsets are a fast tokenizer's for the text that the words come from; special tokens have (0, 0). A token
    across several words belongs to the one with which it shares most characters (the first on a tie).
    """
    out = []
    for start, end in offsets_T2:
        shared = [min(end, b) - max(start, a) for a, b in words_W2]
        best = int(np.argmax(shared)) if shared else -1
        out.append(best if best >= 0 and shared[best] > 0 else -1)
    return out
