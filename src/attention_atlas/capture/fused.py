"""The same statistics without the matrix: a few passes of fused attention over other "values".

α never leaves the kernel, but α·V does, for any V: with V the one-hot group membership it is the group mass;
with V = M·‖f(x)‖ the norm-based mass; with V = K it gives the mean score, and entropy is lse − Σ α·score.
The attention that keys receive is a pass with queries and keys exchanged: Σ_q exp(score − lse_q) is the
exponential of the log-sum-exp of shifted scores. Exact up to rounding; see docs/capture.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from attention_atlas.capture.materialised import blocked_lse, chosen
from attention_atlas.capture.projection import projected_norm
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want


def why_not(call: AttentionCall, want: Want) -> str:
    """Why this call cannot be fused, or '' when it can. `call` is factored."""
    if call.alignment is not None:
        return "its alignment is not a dot product of transformed queries and keys"
    if "attn" in want:
        return "the whole matrix is wanted"
    if call.bias is not None and "entropy" in want:
        return "the mean of a bias that depends on query and key is not separable"
    return ""


def from_passes(
    call: AttentionCall, want: Want, weight_HDM: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    """All wanted statistics of one call, and the context, as from_matrix; `call` is factored and fusable."""
    scale = call.scale
    assert scale is not None
    additive, empty = _additive(call)
    context, lse = _attend_lse(call.q, call.k, call.v, additive, call.is_causal, scale)
    if empty is not None:
        lse = lse.masked_fill(empty, float("-inf"))
        context = context.masked_fill(empty[..., None], 0.0)
    values: dict[str, Tensor] = {}

    def attend(v: Tensor) -> Tensor:
        out = _attend(call.q, call.k, v, additive, call.is_causal, scale)
        return out if empty is None else out.masked_fill(empty[..., None], 0.0)

    _masses(call, want, weight_HDM, values, attend)
    if "entropy" in want:
        mean_score = (call.q * attend(call.k)).sum(-1) * scale
        # An empty row has lse −inf and entropy 0; rounding may leave −1e-7 for a one-hot row.
        values["entropy"] = torch.where(torch.isneginf(lse), 0.0, lse - mean_score).clamp(min=0.0)
    if "lse" in want:
        values["lse"] = lse
    if "received" in want:
        count = lse
        if want.queries_BQ is not None:
            count = lse.masked_fill(~want.queries_BQ[:, None], float("-inf"))
        values["received"] = _received(call, additive, count)
    if "head_norm" in want:
        assert weight_HDM is not None
        values["head_norm"] = projected_norm(context, weight_HDM)
    values |= chosen(call, want, weight_HDM, lse)
    return values, context


def _masses(
    call: AttentionCall,
    want: Want,
    weight_HDM: Tensor | None,
    values: dict[str, Tensor],
    attend: Callable[[Tensor], Tensor],
) -> None:
    """Group mass and norm-based mass, in one pass when both fit the head size."""
    if want.member_BKG is None or not want.any("mass", "norm_mass"):
        return
    member = want.member_BKG[:, None].to(call.q.dtype)
    columns: dict[str, Tensor] = {}
    if "mass" in want:
        columns["mass"] = member.expand(-1, call.k.shape[1], -1, -1)
    if "norm_mass" in want:
        assert weight_HDM is not None
        columns["norm_mass"] = member * projected_norm(call.v, weight_HDM)[..., None]
    both = torch.cat(list(columns.values()), -1) if len(columns) > 1 else next(iter(columns.values()))
    size = call.q.shape[-1]
    # A pass is fused only when values are as wide as queries: cut or pad to that.
    out = torch.cat([attend(part) for part in both.split(size, -1)], -1)
    values |= dict(zip(columns, out.split(member.shape[-1], -1)))


def _additive(call: AttentionCall) -> tuple[Tensor | None, Tensor | None]:
    """Mask and bias as one float tensor of four axes, and which queries see nothing (None: all see)."""
    additive = call.additive()
    if additive is None:
        return None, None
    while additive.ndim < 4:
        additive = additive[None]
    if additive.dtype == torch.bool:
        empty = ~additive.any(-1)
        zeros = torch.zeros((), dtype=call.q.dtype, device=call.q.device)
        additive = torch.where(additive, zeros, float("-inf"))
    else:
        empty = torch.isneginf(additive).all(-1)
    return additive, (empty if bool(empty.any()) else None)


def _pad(v: Tensor, size: int) -> Tensor:
    return F.pad(v, (0, size - v.shape[-1])) if v.shape[-1] < size else v


def _attend(q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, causal: bool, scale: float) -> Tensor:
    out = F.scaled_dot_product_attention(q, k, _pad(v, q.shape[-1]), additive, is_causal=causal, scale=scale)
    return out[..., : v.shape[-1]]


def _attend_lse(
    q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Context and lse. The kernels compute lse anyway; the public function just does not return it."""
    if v.shape[-1] <= q.shape[-1] and q.shape[-2] > 0:
        wide = _pad(v, q.shape[-1])
        if q.device.type == "cpu":
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, wide, 0.0, causal, attn_mask=additive, scale=scale
            )
            return out[..., : v.shape[-1]], lse
        if q.device.type == "cuda":
            try:
                bias = None if additive is None else _aligned(additive.expand(*q.shape[:3], k.shape[2]))
                out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
                    q, k, wide, bias, True, 0.0, causal, scale=scale
                )
                return out[..., : v.shape[-1]], lse[:, :, : q.shape[2]]
            except RuntimeError:
                # A shape or type this kernel does not take: the log-sum-exp in blocks, same numbers.
                pass
    call = AttentionCall(torch.nn.Module(), q, k, v, None, additive, scale, is_causal=causal)
    return _attend(q, k, v, additive, causal, scale), blocked_lse(call)


def _aligned(bias: Tensor) -> Tensor:
    """The same bias with rows that start at multiples of 16 elements, as CUDA's kernel asks."""
    keys = bias.shape[-1]
    return F.pad(bias, (0, -keys % 16))[..., :keys] if keys % 16 else bias.contiguous()


def _received(call: AttentionCall, additive: Tensor | None, lse_BHQ: Tensor) -> Tensor:
    """Σ_q α per key, (B,H,K): log-sum-exp over queries of score − lse_q; queries with lse −inf do not count.

    −lse_q goes in as one more dimension of the queries, against a 1 in the keys, so that no (Q,K) tensor per
    head is needed for it.
    """
    assert call.scale is not None
    empty_BHQ = torch.isneginf(lse_BHQ)
    shift = (-lse_BHQ.masked_fill(empty_BHQ, 0.0) / call.scale)[..., None]
    pad = 7  # keeps the head size a multiple of 8 where it was one
    q = F.pad(torch.cat([call.q, shift], -1), (0, pad))
    k = F.pad(torch.cat([call.k, torch.ones_like(call.k[..., :1])], -1), (0, pad))
    if call.is_causal:
        visible = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).tril()
        additive = q.new_zeros(visible.shape).masked_fill(~visible, float("-inf"))[None, None]
    if additive is not None:
        # Axes of length 1 mean "for all"; only the two that are exchanged must have their full length.
        additive = additive.expand(*additive.shape[:2], q.shape[-2], k.shape[-2]).transpose(2, 3).contiguous()
        unseen_BHK = torch.isneginf(additive).all(-1)
    if bool(empty_BHQ.any()):
        # Leave out queries that see nothing; their shift would be meaningless.
        hidden = q.new_zeros(empty_BHQ.shape).masked_fill(empty_BHQ, float("-inf"))[:, :, None]
        additive = hidden if additive is None else additive + hidden
        unseen_BHK = torch.isneginf(additive).all(-1)
    _, total_BHK = _attend_lse(k, q, torch.zeros_like(q), additive, False, call.scale)
    received = torch.exp(total_BHK)
    return received if additive is None else received.masked_fill(unseen_BHK, 0.0)
