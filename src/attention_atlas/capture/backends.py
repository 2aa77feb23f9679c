"""Choosing the back end for a call's statistics, with the reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_atlas.capture.fused import from_passes, why_not
from attention_atlas.capture.materialised import BLOCK_BYTES, from_matrix
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import AXES, Want

BACKENDS = ("auto", "fused", "materialised")
# Below this size of the matrices of one call, one softmax is cheaper than several fused passes (CPU, float32;
# benchmarks/capture_small.py).
SMALL_BYTES = 2**19


def choose(call: AttentionCall, want: Want, backend: str) -> tuple[str, str]:
    """(fused | blocked | materialised, why). `call` is factored.

    fused falls back to `blocked` (the matrix in blocks of query rows, never whole) if it would not be exact.
    """
    if backend == "materialised":
        return "materialised", "materialised, as requested"
    obstacle = why_not(call, want)
    batch, heads, queries, _ = call.q.shape
    size = 4 * batch * heads * queries * call.k.shape[2]
    if size == 0:
        return "materialised", "materialised: the matrix is empty"
    if backend == "fused":
        if not obstacle:
            return "fused", "fused, as requested"
        return "blocked", f"fused was requested, but {obstacle}: the matrix in blocks of rows"
    if "attn" in want:
        return "materialised", f"materialised: {obstacle}"
    if size <= SMALL_BYTES:
        return "materialised", "materialised: the matrix is small"
    if obstacle:
        return "blocked", f"blocks of rows: {obstacle}"
    return "fused", f"fused: the matrix would take {size / 2**20:.0f} MiB"


def compute(
    factored: AttentionCall, want: Want, weight_HDM: Tensor | None, how: str
) -> tuple[dict[str, Tensor], Tensor]:
    """(statistics, α·V) of a factored call by the back end `how` of `choose`.

    Half precision is computed in float32, also under autocast.
    """
    call = in_float32(factored)
    weight_HDM = None if weight_HDM is None else weight_HDM.to(call.q.dtype)
    keys = call.k.shape[2]
    with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
        if call.sink is not None:
            call, want = call.sink_as_key(), with_sink(want)
        if how == "fused":
            values, context = from_passes(call, want, weight_HDM)
        else:
            values, context = from_matrix(call, want, weight_HDM, BLOCK_BYTES if how == "blocked" else None)
    if call.k.shape[2] > keys:
        # The sink is not a token.
        values = {name: x[..., :keys] if AXES[name].endswith("K") else x for name, x in values.items()}
    return values, context


def in_float32(call: AttentionCall) -> AttentionCall:
    """The same call with half-precision tensors in float32."""

    def exact(x: Tensor | None) -> Any:
        half = x is not None and x.dtype in (torch.float16, torch.bfloat16)
        return x.float() if half and x is not None else x

    return dataclasses.replace(
        call, q=exact(call.q), k=exact(call.k), v=exact(call.v), bias=exact(call.bias), sink=exact(call.sink)
    )


def with_sink(want: Want) -> Want:
    """The same request where the sink is the last key: it is in no group."""
    if want.member_BKG is None:
        return want
    return dataclasses.replace(want, member_BKG=F.pad(want.member_BKG, (0, 0, 0, 1)))


def output(call: AttentionCall, made: Tensor) -> Tensor:
    """The context returned to the model: the back end's α·V where it equals what the plain model computes.

    With dropout, gradients or half precision it does not; if the module has already computed its context
    (`own`), that is returned.
    """
    half = call.q.dtype in (torch.float16, torch.bfloat16)
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v))
    autocast = torch.is_autocast_enabled(call.q.device.type)
    if half or tracked or autocast or call.dropout or call.own is not None:
        return call.context()
    return made


def form_of(call: AttentionCall) -> tuple[Any, ...]:
    """The properties of a call, other than its values, that determine how it is computed."""
    parts = (call.mask, call.bias, call.sink)
    absent = tuple(x is None for x in parts)
    return (
        *absent,
        call.is_causal,
        call.softcap,
        call.q.dtype,
        torch.is_autocast_enabled(call.q.device.type),
    )
