"""Choosing how a call's statistics are computed, and saying why."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from attention_atlas.capture.fused import from_passes, why_not
from attention_atlas.capture.materialised import BLOCK_BYTES, from_matrix
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

BACKENDS = ("auto", "fused", "materialised")
# Below this size of the matrices of one call, one softmax is cheaper than several fused passes (CPU, float32;
# benchmarks/capture_small.py).
SMALL_BYTES = 2**19


def choose(call: AttentionCall, want: Want, backend: str) -> tuple[str, str]:
    """(fused | blocked | materialised, why). `call` is factored.

    fused falls back to `blocked` (the matrix by blocks of query rows, never whole) where it cannot be exact.
    """
    if backend == "materialised":
        return "materialised", "materialised, as asked"
    obstacle = why_not(call, want)
    batch, heads, queries, _ = call.q.shape
    size = 4 * batch * heads * queries * call.k.shape[2]
    if backend == "fused":
        if not obstacle:
            return "fused", "fused, as asked"
        return "blocked", f"fused was asked, but {obstacle}: the matrix in blocks of rows"
    if "attn" in want:
        return "materialised", f"materialised: {obstacle}"
    if size <= SMALL_BYTES:
        return "materialised", "materialised: the matrix is small"
    if obstacle:
        return "blocked", f"blocks of rows: {obstacle}"
    return "fused", f"fused: the matrix would take {size / 2**20:.0f} MiB"


def compute(
    call: AttentionCall,
    factored: AttentionCall,
    want: Want,
    weight_HDM: Tensor | None,
    backend: str,
) -> tuple[dict[str, Tensor], Tensor, str]:
    """(statistics, the model's context, the reason for the back end).

    Statistics of half-precision models are computed in float32. The context is computed as the plain model
    would where it has dropout, gradients or another precision, so that a capture does not change the output.
    """
    how, reason = choose(factored, want, backend)
    precise = factored
    half = call.q.dtype in (torch.float16, torch.bfloat16)
    if half:
        bias = None if factored.bias is None else factored.bias.float()
        precise = dataclasses.replace(
            factored, q=factored.q.float(), k=factored.k.float(), v=factored.v.float(), bias=bias
        )
        weight_HDM = None if weight_HDM is None else weight_HDM.float()
    with torch.no_grad():
        if how == "fused":
            values, context = from_passes(precise, want, weight_HDM)
        else:
            block = BLOCK_BYTES if how == "blocked" else None
            values, context = from_matrix(precise, want, weight_HDM, block)
    tracked = torch.is_grad_enabled() and any(t.requires_grad for t in (call.q, call.k, call.v))
    if half or tracked or call.dropout:
        context = call.context()
    return values, context, reason
