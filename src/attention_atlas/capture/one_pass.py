"""Statistics on CUDA in one pass over the keys, by a kernel of our own (one_pass_kernel.py, needs Triton).

The kernel returns lse, entropy and group mass, and on request the context, without the matrix and without
repeating the heads of grouped queries. The passes of fused.py are its reference, and what computes every call
that it does not support.
"""

from __future__ import annotations

import functools
import importlib.util
import math

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from attention_atlas.capture.materialised import chosen
from attention_atlas.capture.projection import projected_norm
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
WIDTHS = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 128}  # largest head size
GROUPS = 64  # most groups in one pass
CAPABILITY = 8  # tensor cores with bfloat16: Ampere and later
_members: WeakIdKeyDictionary = WeakIdKeyDictionary()


def why_not(call: AttentionCall, want: Want) -> str:
    """Why the kernel cannot compute this call, or '' if it can. `call` need not be factored."""
    return _device(call.q.device) or unsupported(call, want)


def unsupported(call: AttentionCall, want: Want) -> str:
    """As `why_not`, whatever the device."""
    q, k, v = call.q, call.k, call.v
    if call.alignment is not None or call.softcap is not None or call.sink is not None:
        return "the score is not a plain dot product"
    if call.bias is not None:
        return "a bias is added to the scores"
    others = want.names & {"attn", "received", "norm_mass"}
    if others:
        return f"{', '.join(sorted(others))} needs another pass"
    if q.dtype not in DTYPES or k.dtype != q.dtype or v.dtype != q.dtype:
        return f"the type is {q.dtype}, {k.dtype}, {v.dtype}"
    if max(q.shape[-1], v.shape[-1]) > WIDTHS[q.dtype]:
        return f"the head size is above {WIDTHS[q.dtype]}"
    if want.member_BKG is not None and want.member_BKG.shape[-1] > GROUPS:
        return f"there are more than {GROUPS} groups"
    if not q.numel() or not k.numel() or not v.numel() or q.shape[1] % k.shape[1]:
        return "a tensor is empty, or heads do not divide"
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q, k, v)):
        return "gradients are recorded"
    return ""


@functools.cache
def _device(device: torch.device) -> str:
    if device.type != "cuda" or torch.version.cuda is None:
        return "the device is not CUDA"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if torch.cuda.get_device_capability(device)[0] < CAPABILITY:
        return "the GPU is older than Ampere"
    return ""


def from_kernel(
    call: AttentionCall, want: Want, weight_HDM: Tensor | None = None, context: bool = True
) -> tuple[dict[str, Tensor], Tensor | None]:
    """(requested statistics, α·V in the type of `call` or None without `context`), as from_passes.

    `call` is one for which `why_not` is ''; its heads need not be repeated. Statistics are float32: mass
    (B,H,Q,G), entropy and lse (B,H,Q). A query without visible keys has lse −inf, and 0 elsewhere.
    """
    groups = want.member_BKG if "mass" in want else None
    made, lse, entropy, mass = attention(
        call, groups, entropy="entropy" in want, context=context or "head_norm" in want
    )
    values: dict[str, Tensor] = {}
    if mass is not None:
        values["mass"] = mass
    if entropy is not None:
        values["entropy"] = entropy
    if "lse" in want:
        values["lse"] = lse
    if "head_norm" in want:
        assert weight_HDM is not None and made is not None
        values["head_norm"] = projected_norm(made.float(), weight_HDM)
    if want.rows_BR is not None or want.columns_BS is not None or want.pairs_BP2 is not None:
        from attention_atlas.capture.backends import in_float32

        values |= chosen(in_float32(call.factored()), want, weight_HDM, lse)
    return values, made


def attention(
    call: AttentionCall, member_BKG: Tensor | None = None, entropy: bool = False, context: bool = True
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """(context (B,H,Q,E) in the type of v, lse (B,H,Q), entropy (B,H,Q), mass (B,H,Q,G)); all but the first
    are float32, and what was not requested is None."""
    from attention_atlas.capture import one_pass_kernel

    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (call.q, call.k, call.v))
    batch, heads, queries, width = q.shape
    keys, size = k.shape[2], v.shape[-1]
    scale = width**-0.5 if call.scale is None else call.scale
    lse = q.new_empty(batch, heads, queries, dtype=torch.float32)
    entropies = torch.empty_like(lse) if entropy else None
    # Heads last in memory, so that models can join them without a copy.
    out = q.new_empty(batch, queries, heads, size, dtype=v.dtype).transpose(1, 2) if context else None
    mass = member = None
    if member_BKG is not None:
        member = _padded(member_BKG)
        mass = lse.new_empty(batch, heads, queries, member_BKG.shape[-1])
    mask = None if call.mask is None else _four_axes(call.mask, (batch, heads, queries, keys))
    blocks = _sizes(q.dtype, max(width, size), mask is not None)
    grid = (-(-queries // blocks["BLOCK_Q"]), batch * heads)
    one_pass_kernel.attention[grid](
        q, k, v, q if mask is None else mask, q if member is None else member,
        q if out is None else out, lse,
        lse if entropies is None else entropies, lse if mass is None else mass,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
        *((0, 0, 0, 0) if mask is None else mask.stride()),
        0 if member is None or len(member) == 1 else member.stride(0),
        *((0, 0, 0) if out is None else out.stride()[:3]),
        heads, queries, keys, 0 if member_BKG is None else member_BKG.shape[-1], scale * math.log2(math.e),
        D=width, E=size, REPEAT=heads // k.shape[1], CAUSAL=call.is_causal, MASK=mask is not None,
        CONTEXT=context, ENTROPY=entropy, GROUPS=0 if member is None else member.shape[-1],
        PRECISION="tf32x3" if q.dtype == torch.float32 else "ieee",
        BLOCK_D=_power(width), BLOCK_E=_power(size), **blocks,
    )  # fmt: skip
    return out, lse, entropies, mass


def _sizes(dtype: torch.dtype, width: int, masked: bool) -> dict[str, int]:
    """Block sizes, warps and pipeline stages, chosen on an H100 (benchmarks/capture_cuda.py)."""
    if dtype == torch.float32:
        return {"BLOCK_Q": 64, "BLOCK_K": 32, "num_warps": 4, "num_stages": 2}
    if width > 128:
        return {"BLOCK_Q": 64, "BLOCK_K": 32 if masked else 64, "num_warps": 4, "num_stages": 2}
    # The addresses of a mask take registers: with 64 keys they spill.
    return {"BLOCK_Q": 128, "BLOCK_K": 32 if masked else 64, "num_warps": 8, "num_stages": 3}


def _power(size: int) -> int:
    """The next power of two, at least 16: what the kernel's matrix products accept."""
    return max(16, 1 << (size - 1).bit_length())


def _padded(member_BKG: Tensor) -> Tensor:
    """Membership as bfloat16 with 16, 32 or 64 groups; kept as long as the tensor itself."""
    found: Tensor | None = _members.get(member_BKG)
    if found is None:
        groups = member_BKG.shape[-1]
        found = member_BKG.new_zeros(*member_BKG.shape[:2], _power(groups), dtype=torch.bfloat16)
        found[..., :groups] = member_BKG
        _members[member_BKG] = found
    return found


def _four_axes(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    while mask.ndim < 4:
        mask = mask[None]
    return mask.expand(shape)
