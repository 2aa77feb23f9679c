"""The positions of a query or key axis: token strings, roles, word indices, and probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import h5py
import numpy as np

from attention_atlas.capture.roles import ROLES
from attention_atlas.errors import AtlasError, did_you_mean


@dataclass
class Axis:
    """One axis of length T. tokens: strings; roles: members of ROLES (default: all text); word: index of each
    token's word, −1 for none (default: every text token is its own word); logprob: natural logarithm of the
    probability that the model gave each token under teacher forcing, NaN for none (default: not known)."""

    tokens: Sequence[str]
    roles: Sequence[str] = ()
    word: Sequence[int] = field(default_factory=tuple)
    logprob: Sequence[float] = ()

    def __post_init__(self) -> None:
        self.tokens = [str(t) for t in self.tokens]
        self.roles = [str(r) for r in self.roles] if len(self.roles) else ["text"] * len(self.tokens)
        if len(self.word):
            self.word = [int(w) for w in self.word]
        else:
            counter = iter(range(len(self.tokens)))
            self.word = [next(counter) if role == "text" else -1 for role in self.roles]
        self.logprob = [float(p) for p in self.logprob]
        lengths = {"roles": len(self.roles), "word": len(self.word)}
        if self.logprob:
            lengths["logprob"] = len(self.logprob)
        for name, length in lengths.items():
            if length != len(self.tokens):
                raise AtlasError(
                    f"axis: {name}: {length} values for {len(self.tokens)} tokens; give one per token"
                )
        for role in self.roles:
            if role not in ROLES:
                raise AtlasError(f"axis: roles: unknown role '{role}'{did_you_mean(role, ROLES)}")
        if any(p > 0 for p in self.logprob):
            raise AtlasError(
                f"axis: logprob: {max(self.logprob):.3g} is above 0; give natural logarithms of probabilities"
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def where(self, *roles: str) -> np.ndarray:
        """(T,) bool: positions with one of these roles."""
        return np.isin(np.asarray(self.roles), roles)


def write_axis(group: h5py.Group, axis: Axis) -> None:
    # Fixed-length strings, because variable-length ones are stored in a heap that no filter compresses.
    for name, values in (("tokens", axis.tokens), ("roles", axis.roles)):
        encoded = [value.encode() for value in values]
        width = max(map(len, encoded), default=1) or 1
        dtype = h5py.string_dtype("utf-8", width)
        group.create_dataset(name, data=np.array(encoded, dtype=f"S{width}").astype(dtype), dtype=dtype)
    group.create_dataset("word", data=np.asarray(axis.word, dtype=np.int32))
    if len(axis.logprob):
        group.create_dataset("logprob", data=np.asarray(axis.logprob, dtype=np.float32))


def read_axis(group: h5py.Group) -> Axis:
    tokens = [value.decode() for value in group["tokens"][()]]
    roles = [value.decode() for value in group["roles"][()]]
    logprob = group["logprob"][()] if "logprob" in group else ()
    return Axis(tokens, roles, [int(w) for w in group["word"][()]], logprob)
