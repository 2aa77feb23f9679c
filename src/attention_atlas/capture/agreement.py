"""Whether two computations of the same attention agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.seam import AttentionCall

# Relative to typical values. In half precision a module applies softmax to rounded scores, whereas α comes
# from float32 scores: that alone changes single values by several percent. In float32 a score of a thousand
# (from inputs that are not normalised) has a rounding error of 1e-4, and so has α.
TOLERANCE = {torch.bfloat16: 0.1, torch.float16: 0.02, torch.float32: 1e-3, torch.float64: 1e-3}
HALF = (torch.float16, torch.bfloat16)
MASKED = 1e8  # models mark masked entries with larger values; computed values stay below


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference of two lists of tensors, relative to |value| + the typical |value| of its tensor.

    inf where shapes, masked or infinite entries differ. Masked entries are those beyond MASKED or near the
    limit of their type.
    """
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    return max((_distance(x, y) for x, y in zip(a, b) if x.numel()), default=0.0)


def _distance(x: Tensor, y: Tensor) -> float:
    limit = min(MASKED, torch.finfo(x.dtype).max / 2)
    x, y = x.detach().double(), y.detach().double()
    fixed, other = (~(t.abs() < limit) for t in (x, y))
    signs = [torch.where(t.isnan(), 2.0, t.sign())[fixed] for t in (x, y)]
    if not torch.equal(fixed, other) or not torch.equal(*signs):
        return float("inf")
    x, y = x[~fixed], y[~fixed]
    if not x.numel():
        return 0.0
    size = x.abs()
    # A mask value of −10,000 is not typical either.
    common = size[size <= 1e3 * size.median()]
    typical = common.square().mean().sqrt()
    return float(((x - y).abs() / (size + typical + 1e-12)).max())


def disagreement(call: AttentionCall, made: Tensor, tolerance: float | None = None) -> str:
    """How α·V (`made`) differs from the module's own result; '' if it does not.

    In half precision the reference is the module's own function on float32 inputs, if it has one. Where
    `made` itself is in half precision (one pass), the tolerance is that of its type.
    """
    with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
        dtype = torch.float32
        if call.own is not None and (call.plain is None or call.own.dtype not in HALF):
            expected, dtype = call.own, call.own.dtype
        elif call.plain is not None:
            expected = call.plain(True)
        else:
            expected = dataclasses.replace(call, dropout=0.0).in_float32().context()
    if made.shape != expected.shape:
        return f"have shape {tuple(made.shape)}, but the module computed {tuple(expected.shape)}"
    limit = max(TOLERANCE[dtype], TOLERANCE[made.dtype])
    limit = limit if tolerance is None else max(limit, tolerance)
    error = distance([expected.float()], [made.float()])
    return "" if error <= limit else f"are not what the module computed (relative difference {error:.1e})"


def tensors(output: Any, visible_BT: Tensor | None = None) -> list[Tensor]:
    """All float tensors in a model's output, at the visible positions where it has such an axis."""
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            return []
        if visible_BT is not None and output.shape[:2] == visible_BT.shape:
            output = output[visible_BT.bool()]
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [t for item in output for t in tensors(item, visible_BT)]
    return []
