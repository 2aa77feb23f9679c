"""The same statistics without the matrix: a few fused attention passes with substitute values.

α never leaves the kernel, but α·V does, for any V: with V = M, the one-hot group membership, it is the group
mass; with V = M·‖f(x)‖ the norm-based mass; with V = K it gives the mean score, and entropy is
lse − Σ α·score. The attention that keys receive takes a pass with queries and keys exchanged:
Σ_q exp(score − lse_q) is the exponential of the log-sum-exp of shifted scores. Exact up to rounding; see
docs/capture.md.
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
    """Why this call cannot be fused, or '' if it can. `call` is factored."""
    if call.alignment is not None:
        return "its alignment is not a dot product of transformed queries and keys"
    if call.softcap is not None:
        return "its scores are capped"
    if "attn" in want:
        return "the whole matrix is requested"
    if call.bias is not None and "entropy" in want:
        return "the mean of a bias that depends on query and key is not separable"
    return ""


def from_passes(
    call: AttentionCall, want: Want, weight_HDM: Tensor | None
) -> tuple[dict[str, Tensor], Tensor]:
    """All requested statistics of one call, and the context, as from_matrix. `call`: factored and fusable."""
    scale = call.scale
    assert scale is not None
    if call.mask is not None or call.bias is not None:
        call = call.explicit()
    additive, empty = _additive(call)
    context, lse = _attend_lse(call.q, call.k, call.v, additive, call.is_causal, scale)
    if empty is not None:
        lse = lse.masked_fill(empty, float("-inf"))
        context = context.masked_fill(empty[..., None], 0.0)
    values: dict[str, Tensor] = {}

    def attend(v: Tensor) -> Tensor:
        out = _attend(call.q, call.k, v, additive, call.is_causal, scale)
        return out if empty is None else out.masked_fill(empty[..., None], 0.0)

    mean_key = _masses(call, want, weight_HDM, values, attend)
    if mean_key is not None:
        mean_score = (call.q * mean_key).sum(-1) * scale
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
) -> Tensor | None:
    """Add group mass and norm-based mass to `values`; return the mean key (B,H,Q,D) if entropy is wanted."""
    columns: dict[str, Tensor] = {}
    if want.member_BKG is not None:
        member = want.member_BKG[:, None].to(call.q.dtype).expand(-1, call.k.shape[1], -1, -1)
        if "mass" in want:
            columns["mass"] = member
        if "norm_mass" in want:
            assert weight_HDM is not None
            columns["norm_mass"] = member * projected_norm(call.v, weight_HDM)[..., None]
    # As wide as the queries, so that no pass has to pad them.
    size = call.q.shape[-1]
    parts = list(torch.cat(list(columns.values()), -1).split(size, -1)) if columns else []
    mean_key, found = None, []
    if "entropy" in want and parts and call.q.device.type == "cpu":
        # One wider pass takes less time than two. The kernels of GPUs limit the width.
        mean_key, first = attend(torch.cat([call.k, parts.pop(0)], -1)).tensor_split([size], -1)
        found = [first]
    elif "entropy" in want:
        mean_key = attend(call.k)
    found += [attend(part) for part in parts]
    if columns:
        values |= dict(zip(columns, torch.cat(found, -1).split(member.shape[-1], -1)))
    return mean_key


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


def _ready(x: Tensor, width: int) -> Tensor:
    """`x` with its last axis padded to `width` and contiguous.

    The kernels are called directly, without the checks of the public function, and assume stride 1 on the
    last axis.
    """
    x = F.pad(x, (0, width - x.shape[-1])) if x.shape[-1] < width else x
    return x if x.stride(-1) == 1 else x.contiguous()


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Inputs for any kernel: one head size for q, k and v, a multiple of 8, and contiguous last axes."""
    width = max(q.shape[-1], v.shape[-1])
    width += -width % 8
    if additive is not None:
        keys = k.shape[-2]
        additive = additive.to(q.dtype).expand(*additive.shape[:-1], keys)
        additive = additive if additive.stride(-1) == 1 else additive.contiguous()
    return _ready(q, width), _ready(k, width), _ready(v, width), additive


def _attend(q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, causal: bool, scale: float) -> Tensor:
    size = v.shape[-1]
    q, k, v, additive = _inputs(q, k, v, additive)
    out = F.scaled_dot_product_attention(q, k, v, additive, is_causal=causal, scale=scale)
    return out[..., :size]


def _attend_lse(
    q: Tensor, k: Tensor, v: Tensor, additive: Tensor | None, causal: bool, scale: float
) -> tuple[Tensor, Tensor]:
    """Context and lse. The kernels compute lse anyway, but the public function does not return it."""
    size = v.shape[-1]
    q, k, v, additive = _inputs(q, k, v, additive)
    if q.device.type == "cpu":
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=additive, scale=scale
        )
        return out[..., :size], lse
    if q.device.type == "cuda":
        bias = None if additive is None else _aligned(additive.expand(*q.shape[:3], k.shape[2]))
        params = torch.backends.cuda.SDPAParams(q, k, v, bias, 0.0, causal, False)
        if torch.backends.cuda.can_use_efficient_attention(params):
            out, lse, *_ = torch.ops.aten._scaled_dot_product_efficient_attention(
                q, k, v, bias, True, 0.0, causal, scale=scale
            )
            return out[..., :size], lse[:, :, : q.shape[2]]
    # A type or device that these kernels do not support: the log-sum-exp in blocks, with the same values.
    call = AttentionCall(torch.nn.Module(), q, k, v, None, additive, scale, is_causal=causal)
    return _attend(q, k, v, additive, causal, scale)[..., :size], blocked_lse(call)


def _aligned(bias: Tensor) -> Tensor:
    """The same bias with rows that start at multiples of 16 elements, as CUDA's kernel requires."""
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
    q = torch.cat([call.q, shift], -1)
    k = torch.cat([call.k, torch.ones_like(call.k[..., :1])], -1)
    if call.is_causal:
        additive, _ = _additive(call.explicit())
    if additive is not None:
        # Axes of length 1 are broadcast; only the two that are exchanged need their full length.
        additive = additive.expand(*additive.shape[:2], q.shape[-2], k.shape[-2]).transpose(2, 3)
        masked_BHK = torch.isneginf(additive).all(-1)
    if bool(empty_BHQ.any()):
        # Exclude queries that see nothing: their shift would be meaningless.
        hidden = q.new_zeros(empty_BHQ.shape).masked_fill(empty_BHQ, float("-inf"))[:, :, None]
        additive = hidden if additive is None else additive + hidden
        masked_BHK = torch.isneginf(additive).all(-1)
    _, total_BHK = _attend_lse(k, q, torch.zeros_like(q), additive, False, call.scale)
    received = torch.exp(total_BHK)
    return received if additive is None else received.masked_fill(masked_BHK, 0.0)
