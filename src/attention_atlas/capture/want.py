"""The request of a capture: names of statistics, and the rows, columns and pairs that some of them need.

Per attention call (B batch, H head, Q query, K key, G group, R chosen rows, S chosen columns, P pairs):

mass         (B,H,Q,G)  Σ over the keys of a group of α
entropy      (B,H,Q)    −Σ α ln α, in nats
lse          (B,H,Q)    ln Σ exp(score), −inf where a query sees nothing
received     (B,H,K)    Σ over queries of α: the attention that a key receives
attn         (B,H,Q,K)  α itself
rows         (B,H,R,K)  α of chosen queries
columns      (B,H,Q,S)  α on chosen keys
pairs        (B,H,P)    α of chosen (query, key) pairs
head_norm    (B,H,Q)    ‖Σ_j α f(x_j)‖, the norm of a head's contribution to the residual stream
norm_mass    (B,H,Q,G)  Σ over the keys of a group of α·‖f(x_j)‖
norm_rows    (B,H,R,K)  α·‖f(x_j)‖ of chosen queries
norm_summed  (B,R,K)    ‖Σ_h α_h f_h(x_j)‖ of chosen queries: summed over heads before the norm

f_h(x) = (x W_V + b_V) W_O^h without the output bias (Kobayashi et al. 2020, eq. 6 and §4).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

if TYPE_CHECKING:
    from attention_atlas.capture.seam import AttentionCall

# Axes after batch (and head, except for norm_summed).
AXES = {
    "mass": "QG",
    "entropy": "Q",
    "lse": "Q",
    "received": "K",
    "attn": "QK",
    "rows": "RK",
    "columns": "QS",
    "pairs": "P",
    "head_norm": "Q",
    "norm_mass": "QG",
    "norm_rows": "RK",
    "norm_summed": "RK",
}
STATISTICS = tuple(AXES)
NEEDS_PROJECTION = frozenset({"head_norm", "norm_mass", "norm_rows", "norm_summed"})
PARTS = ("decoder", "vision", "cross")
NEEDS_GROUPS = frozenset({"mass", "norm_mass"})
NEEDS_ROWS = frozenset({"rows", "norm_rows", "norm_summed"})


@dataclass(frozen=True)
class Want:
    """Names of statistics and, resolved for one attention call, the indices (rows_BR, columns_BS,
    pairs_BP2), group membership (member_BKG bool) and the queries that count in `received` (queries_BQ bool,
    None: all)."""

    names: frozenset[str]
    rows_BR: Tensor | None = None
    columns_BS: Tensor | None = None
    pairs_BP2: Tensor | None = None
    member_BKG: Tensor | None = None
    queries_BQ: Tensor | None = None

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def any(self, *names: str) -> bool:
        return not self.names.isdisjoint(names)


def check_names(names: Sequence[str]) -> frozenset[str]:
    """The names as a set. Raises ConfigError for an unknown one."""
    for name in names:
        if name not in STATISTICS:
            raise ConfigError(f"capture: statistics: '{name}' is unknown{did_you_mean(name, STATISTICS)}")
    if not names:
        raise ConfigError("capture: statistics: is empty; name at least one, for example mass")
    return frozenset(names)


def for_kind(value: Any, kind: str, aliases: Sequence[str] = ()) -> Any:
    """`value`; for a mapping {kind glob: value} the entry whose glob matches `kind`, else None. aliases:
    see `fits`."""
    if not isinstance(value, Mapping):
        return value
    for pattern, item in value.items():
        if kind == pattern or any(fits(pattern, name) for name in (kind, *aliases)):
            return item
    return None


def matches(patterns: Sequence[str], *names: str) -> bool:
    """Whether one of the globs matches one of `names`. A glob with a leading '!' excludes its matches; with
    exclusions only, everything else matches."""
    excluded = [p[1:] for p in patterns if p.startswith("!")]
    included = [p for p in patterns if not p.startswith("!")] or ["*"]
    if any(fits(p, name) for p in excluded for name in names):
        return False
    return any(fits(p, name) for p in included for name in names)


def fits(pattern: str, name: str) -> bool:
    """Whether a glob matches a name. A name that starts with "@" is that of a part of the model ("@decoder",
    "@decoder.3"); only a pattern whose first word is the name of a part matches it."""
    if name.startswith("@"):
        return pattern.partition(".")[0] in PARTS and fnmatchcase(name[1:], pattern)
    return fnmatchcase(name, pattern)


def without(names: Sequence[str]) -> list[str]:
    """Globs that match everything but modules with these names, their layer numbers replaced by *."""
    return ["*", *dict.fromkeys("!" + re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names)]


def indices(value: Any, batch: int, sizes: Sequence[int], what: str, device: torch.device) -> Tensor:
    """Chosen positions as (B, n) for one size, or (B, n, 2) for two; negative ones count from the end.

    `value` holds them per batch element, or once for all. Raises AtlasError for a position out of range.
    """
    index = torch.as_tensor(value, dtype=torch.long, device=device)
    dims = len(sizes)
    index = index.reshape(1) if index.ndim == 0 else index
    if index.ndim == dims:
        index = index.expand(batch, *index.shape)
    if index.ndim != dims + 1 or len(index) != batch or (dims == 2 and index.shape[-1] != 2):
        shape = "(n, 2) or (B, n, 2)" if dims == 2 else "(n,) or (B, n)"
        raise AtlasError(f"capture: {what}: shape {tuple(index.shape)}; give {shape} positions")
    limit = torch.tensor(sizes, device=device) if dims == 2 else sizes[0]
    if bool(((index >= limit) | (index < -limit)).any()):
        raise AtlasError(f"capture: {what}: a position is outside {' × '.join(map(str, sizes))}")
    return torch.where(index < 0, index + limit, index)


@dataclass(frozen=True)
class Request:
    """The request for all kinds: each field is one value, or {kind glob: value}; see `Capture`."""

    names: frozenset[str]
    groups: Any = None
    rows: Any = None
    columns: Any = None
    pairs: Any = None
    queries: Any = None

    def of(self, call: AttentionCall, kind: str, aliases: Sequence[str] = ()) -> tuple[Want, list[str]]:
        """(the request for one factored call, names of its groups).

        Omits statistics whose groups, rows, columns or pairs a kind lacks. Raises AtlasError for values that
        do not match the call.
        """
        batch, _, queries, _ = call.q.shape
        keys, device, names = call.k.shape[2], call.q.device, self.names
        member, group_names = None, []
        groups = for_kind(self.groups, kind, aliases)
        if groups is None:
            names -= NEEDS_GROUPS
        elif not names.isdisjoint(NEEDS_GROUPS):
            member, group_names = groups.member_BKG, groups.names
            if member.shape[1] != keys or len(member) not in (1, batch):
                raise AtlasError(
                    f"capture: groups: for {len(member)} × {member.shape[1]} keys, but {kind} has {batch} × "
                    f"{keys}; give groups={{kind glob: groups}} or choose layers="
                )
            member = groups.on(device, batch)
        chosen: dict[str, Tensor | None] = {}
        for what, value, sizes, needed in (
            ("rows", for_kind(self.rows, kind, aliases), (queries,), NEEDS_ROWS),
            ("columns", for_kind(self.columns, kind, aliases), (keys,), {"columns"}),
            ("pairs", for_kind(self.pairs, kind, aliases), (queries, keys), {"pairs"}),
        ):
            chosen[what] = None
            if value is None:
                names -= set(needed)
            elif not names.isdisjoint(needed):
                chosen[what] = indices(value, batch, sizes, f"{what}: {kind}", device)
        count = for_kind(self.queries, kind, aliases)
        if count is not None and "received" in names:
            count = torch.as_tensor(count, device=device).bool()
            if count.shape != (batch, queries):
                raise AtlasError(
                    f"capture: queries: shape {tuple(count.shape)}, but {kind} has {batch} × {queries}"
                )
        want = Want(names, chosen["rows"], chosen["columns"], chosen["pairs"], member, count)
        return want, group_names
