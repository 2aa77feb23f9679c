"""Choosing the back end for a call's statistics, with the reason."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_atlas.capture import one_pass
from attention_atlas.capture.fused import from_passes, why_not
from attention_atlas.capture.materialised import BLOCK_BYTES, from_matrix
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import AXES, Want

BACKENDS = ("auto", "fused", "one_pass", "materialised")
# Below this size of the matrices of one call, one softmax is cheaper than several fused passes (CPU, float32;
# benchmarks/capture_small.py).
SMALL_BYTES = 2**19
ONE_PASS = "one pass: the kernel supports this call"


def plan(call: AttentionCall, want: Want, backend: str) -> tuple[AttentionCall, str, str]:
    """(the call, factored unless computed in one pass; the back end and reason of `choose`)."""
    if backend != "materialised" and not one_pass.why_not(call, want):
        return call, "one_pass", ONE_PASS
    call = call.factored()
    return call, *choose(call, want, backend)


def choose(call: AttentionCall, want: Want, backend: str) -> tuple[str, str]:
    """(one_pass | fused | blocked | materialised, why). `call` is factored.

    one_pass falls back to fused for calls that its kernel does not support, and fused to `blocked` (the
    matrix in blocks of query rows, never whole) if it would not be exact.
    """
    if backend == "materialised":
        return "materialised", "materialised, as requested"
    unsupported = one_pass.why_not(call, want)
    if not unsupported:
        return "one_pass", ONE_PASS
    if backend == "one_pass" or call.q.is_cuda:
        how, reason = choose_fused(call, want, "fused" if backend == "one_pass" else backend)
        return how, f"{reason}; not in one pass: {unsupported}"
    return choose_fused(call, want, backend)


def choose_fused(call: AttentionCall, want: Want, backend: str) -> tuple[str, str]:
    """`choose` among the back ends that work on every device."""
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
    call: AttentionCall, want: Want, weight_HDM: Tensor | None, how: str, context: bool = True
) -> tuple[dict[str, Tensor], Tensor | None]:
    """(statistics, α·V) of a planned call by the back end `how`.

    Half precision is computed in float32, also under autocast; in one pass, the sums are float32 and α·V has
    the type of the call. Without `context`, α·V may be None.
    """
    if how == "one_pass":
        return one_pass.from_kernel(call, want, weight_HDM, context)
    made: Tensor | None
    call = call.in_float32()
    weight_HDM = None if weight_HDM is None else weight_HDM.to(call.q.dtype)
    keys = call.k.shape[2]
    with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
        if call.sink is not None:
            call, want = call.sink_as_key(), with_sink(want)
        if how == "fused":
            values, made = from_passes(call, want, weight_HDM)
        else:
            values, made = from_matrix(call, want, weight_HDM, BLOCK_BYTES if how == "blocked" else None)
    if call.k.shape[2] > keys:
        # The sink is not a token.
        values = {name: x[..., :keys] if AXES[name].endswith("K") else x for name, x in values.items()}
    return values, made


def with_sink(want: Want) -> Want:
    """The same request where the sink is the last key: it is in no group."""
    if want.member_BKG is None:
        return want
    return dataclasses.replace(want, member_BKG=F.pad(want.member_BKG, (0, 0, 0, 1)))


def returned(call: AttentionCall, how: str, backend: str = "auto") -> bool:
    """Whether the model gets the α·V of `how`: where it equals what the plain model computes.

    With dropout, gradients or half precision it does not, unless backend="one_pass" asks for it in half
    precision; if the module has already computed its context (`own`), that is returned.
    """
    half = call.q.dtype in (torch.float16, torch.bfloat16) and not (how == backend == "one_pass")
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v))
    autocast = torch.is_autocast_enabled(call.q.device.type)
    return not (half or tracked or autocast or call.dropout or call.own is not None)


def output(call: AttentionCall, made: Tensor | None, how: str = "", backend: str = "auto") -> Tensor:
    """The context returned to the model: α·V of the back end, or the module's own."""
    return made if made is not None and returned(call, how, backend) else call.context()


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
