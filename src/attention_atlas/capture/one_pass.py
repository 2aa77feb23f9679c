"""Statistics on CUDA in one pass over the keys, by a custom kernel (one_pass_kernel.py, needs Triton).

The kernel returns lse, entropy and group mass, and on request the context, without the matrix and without
repeating the heads of grouped queries. The passes of fused.py are its reference, and its fallback for calls
that it does not support.
"""

from __future__ import annotations

import functools
import importlib.util
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from attention_atlas.capture.materialised import chosen
from attention_atlas.capture.projection import projected_norm
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

DTYPES = (torch.bfloat16, torch.float16, torch.float32)
# Largest head size; half of it on a GPU with less shared memory per block than an A100 has.
WIDTHS = {torch.bfloat16: 256, torch.float16: 256, torch.float32: 128}
A100, H100 = 163 * 2**10, 227 * 2**10
GROUPS = 64  # most groups in one pass
CAPABILITY = 8  # tensor cores with bfloat16: Ampere and later
SHORT = 2  # a run of fewer blocks is not worth a separate loop
_members: WeakIdKeyDictionary = WeakIdKeyDictionary()


def why_not(call: AttentionCall, want: Want) -> str:
    """Why the kernel cannot compute this call, or '' if it can. `call` need not be factored."""
    return _device(call.q.device) or unsupported(call, want)


def unsupported(call: AttentionCall, want: Want) -> str:
    """Like `why_not`, regardless of the device."""
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
    if call.scale is not None and call.scale <= 0:
        return "the scale is not positive"
    limit = WIDTHS[q.dtype] // (1 if _shared(q.device) >= A100 else 2)
    if max(q.shape[-1], v.shape[-1]) > limit:
        return f"the head size is above {limit}"
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
    return _trial(device)


def _trial(device: torch.device) -> str:
    """'' if a tiny call runs: Triton also needs a C compiler and a place for its cache."""
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float16, device=device)
    try:
        attention(AttentionCall(torch.nn.Module(), x, x, x))
    except Exception as error:
        return f"Triton cannot run its kernel ({(str(error).splitlines() or [type(error).__name__])[0]})"
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
    if want.any("head_norm", "rows", "norm_rows", "norm_summed", "columns", "pairs"):
        weight_HDM = None if weight_HDM is None else weight_HDM.float()
        with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
            if "head_norm" in want:
                assert weight_HDM is not None and made is not None
                values["head_norm"] = projected_norm(made.float(), weight_HDM)
            values |= chosen(call.factored().in_float32(), want, weight_HDM, lse)
    return values, made


def attention(
    call: AttentionCall, member_BKG: Tensor | None = None, entropy: bool = False, context: bool = True
) -> tuple[Tensor | None, Tensor, Tensor | None, Tensor | None]:
    """(context (B,H,Q,E) in the type of v, lse (B,H,Q), entropy (B,H,Q), mass (B,H,Q,G)); all but the first
    are float32. Those not requested are None."""
    from attention_atlas.capture import one_pass_kernel

    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (call.q, call.k, call.v))
    batch, heads, queries, width = q.shape
    keys, size = k.shape[2], v.shape[-1]
    scale = width**-0.5 if call.scale is None else call.scale
    lse = q.new_empty(batch, heads, queries, dtype=torch.float32)
    entropies = torch.empty_like(lse) if entropy else None
    # Heads last in memory, so that models can join them without a copy.
    out = q.new_empty(batch, queries, heads, size, dtype=v.dtype).transpose(1, 2) if context else None
    blocks = _sizes(q.dtype, max(width, size), call.mask is not None, context, _shared(q.device))
    mass = table = None
    if member_BKG is not None:
        table = _table(member_BKG, blocks["BLOCK_K"])
        mass = lse.new_empty(batch, heads, queries, member_BKG.shape[-1])
    mask = None if call.mask is None else _four_axes(call.mask, (batch, heads, queries, keys))
    grid = (-(-queries // blocks["BLOCK_Q"]), batch * heads)
    # Triton launches on the current device.
    with torch.cuda.device_of(q):
        one_pass_kernel.attention[grid](
            q, k, v, q if mask is None else mask,
            *((q, lse, lse) if table is None else (table.member, table.runs, table.rows)),
            q if out is None else out, lse,
            lse if entropies is None else entropies, lse if mass is None else mass,
            *q.stride()[:3], *k.stride()[:3], *v.stride()[:3],
            *((0, 0, 0, 0) if mask is None else mask.stride()),
            0 if table is None else table.member.stride(0),
            *((0, 0, 0) if out is None else out.stride()[:3]),
            heads, queries, keys, 0 if member_BKG is None else member_BKG.shape[-1],
            0 if table is None else table.runs.shape[1], 0 if table is None else table.runs.shape[1],
            scale * math.log2(math.e),
            D=width, E=size, REPEAT=heads // k.shape[1], CAUSAL=call.is_causal, MASK=mask is not None,
            CONTEXT=context, ENTROPY=entropy, GROUPS=0 if table is None else table.member.shape[-1],
            PRECISION="tf32x3" if q.dtype == torch.float32 else "ieee",
            BLOCK_D=_power(width), BLOCK_E=_power(size), **blocks,
        )  # fmt: skip
    return out, lse, entropies, mass


@functools.cache
def _shared(device: torch.device) -> int:
    """Bytes of shared memory that one block may use."""
    if device.type != "cuda":
        return H100
    properties: Any = torch.cuda.get_device_properties(device)
    return int(properties.shared_memory_per_block_optin)


def _sizes(dtype: torch.dtype, width: int, masked: bool, context: bool, shared: int) -> dict[str, int]:
    """Block sizes, warps and stages: the fastest of several on an H200 that do not spill registers."""
    if dtype == torch.float32 or shared < A100:
        found = (64, 32, 4, 2)
    elif width > 128:
        found = (64, 32 if masked or shared < H100 else 64, 4, 2)
    elif masked:
        # The addresses of a mask take registers.
        found = (128, 32, 8, 3)
    elif not context:
        found = (64, 64, 4, 3)
    else:
        found = (128, 128 if shared >= H100 else 64, 8, 3)
    return dict(zip(("BLOCK_Q", "BLOCK_K", "num_warps", "STAGES"), found))


def _power(size: int) -> int:
    """The next power of two, at least 16, as the kernel's matrix products require."""
    return max(16, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class _Table:
    """The kernel's table of the groups. member (B,K,W): bfloat16, W 16, 32 or 64 groups. runs (B,R,3):
    first and last key (exclusive) of runs of whole blocks, and whether all their keys are in the same groups;
    rows (B,R,W): those groups. Runs of different groups, and short ones, are joined."""

    member: Tensor
    runs: Tensor
    rows: Tensor


def _table(member_BKG: Tensor, block: int) -> _Table:
    """The table for blocks of `block` keys; kept as long as the tensor itself."""
    known: dict[int, _Table] = _members.setdefault(member_BKG, {})
    if block not in known:
        batch, _, groups = member_BKG.shape
        member = F.pad(member_BKG, (0, _power(groups) - groups)).cpu()
        found = [_runs(one, block) for one in member]
        longest = max(len(runs) for runs in found)
        runs = torch.zeros(batch, longest, 3, dtype=torch.int32)
        rows = torch.zeros(batch, longest, member.shape[-1])
        for b, items in enumerate(found):
            for r, item in enumerate(items):
                runs[b, r], rows[b, r] = torch.tensor(item), member[b, item[0]]
        device = member_BKG.device
        known[block] = _Table(member.to(device, torch.bfloat16), runs.to(device), rows.to(device))
    return known[block]


def _runs(member_KG: Tensor, block: int) -> list[tuple[int, int, int]]:
    """(first key, end, whether uniform) of all whole blocks, in order."""
    blocks = len(member_KG) // block
    in_block = member_KG[: blocks * block].unflatten(0, (blocks, block))
    uniform = (in_block == in_block[:, :1]).all(-1).all(-1).tolist()
    same = (in_block[1:, 0] == in_block[:-1, 0]).all(-1).tolist()
    runs: list[tuple[int, int, int]] = []
    start = 0
    while start < blocks:
        end = start + 1
        while end < blocks and uniform[start] and uniform[end] and same[end - 1]:
            end += 1
        alone = uniform[start] and end - start >= SHORT
        if runs and not alone and not runs[-1][2]:
            runs[-1] = (runs[-1][0], end * block, 0)
        else:
            runs.append((start * block, end * block, int(alone)))
        start = end
    return runs


def _four_axes(mask: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    while mask.ndim < 4:
        mask = mask[None]
    return mask.expand(shape)
