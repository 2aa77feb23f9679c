"""The one place where attention is computed, so that a capture can see it.

Own models call `attend` and never softmax attention themselves:

    context_BHQD = attend(self, q_BHQD, k_BHKD, v_BHKD, mask=mask, bias=bias)

`self` is the nn.Module that owns this attention; it has `attention_kind` (str, e.g. "cross") and
`layer_index` (int, 0-based). Without an active capture `attend` is `F.scaled_dot_product_attention`. With
one, the capture sees the same tensors and must return the same context.

The first author's public fork saves its maps from a second call of the attention on the residual input x,
although the model itself uses norm(x). To let a capture reproduce that (`convention: unnormalised`), the
block that owns the residual connection says in one line what x is, before it calls the attention:

    residual_input(self.attention, x)                   # does nothing unless such a capture is active
    x = x + self.attention(self.norm(x), memory, mask=mask)

The capture then calls the attention a second time with x in place of norm(x) (its first argument,
wherever that very tensor object occurs; so for self-attention pass `source=None` or the same tensor
twice), records that call, and leaves the model's own computation alone. For a kind that contains "self"
do not hand over precomputed keys and values in such a pass; the capture refuses it, because they would
come from norm(x).

Axis letters: B batch, H head, Q query = target, K key = source, D head size.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class AttentionCall:
    """One attention computation, in the form every back end understands.

    q_BHQD, k_BHKD, v_BHKE: heads already split; k and v may have fewer heads than q (grouped queries).
    mask: bool, broadcastable to (B,H,Q,K), True = may attend. bias: float, added to the scaled score.
    scale: None means 1/sqrt(D). alignment: None for the dot product, else an object with either
    `factor(q, k) -> (q', k', scale)`, which keeps the score a scaled dot product, or
    `score(q, k) -> score_BHQK`, which replaces q·k·scale and treats every (query, key) pair by itself.
    own_BHQE: what the module computed itself, where a route knows it; the check at load time compares.
    """

    module: nn.Module
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    bias: Tensor | None = None
    scale: float | None = None
    dropout: float = 0.0
    alignment: Any = None
    is_causal: bool = False
    own: Tensor | None = None

    def factored(self) -> AttentionCall:
        """The same call with `alignment.factor` applied and heads of k and v repeated to those of q."""
        q, k, scale, alignment = self.q, self.k, self.scale, self.alignment
        if alignment is not None and hasattr(alignment, "factor"):
            q, k, scale = alignment.factor(q, k)
            alignment = None
        repeat = q.shape[1] // k.shape[1]
        v = self.v
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        if scale is None:
            scale = q.shape[-1] ** -0.5
        return AttentionCall(
            self.module, q, k, v, self.mask, self.bias, scale, self.dropout, alignment, self.is_causal
        )

    def additive(self) -> Tensor | None:
        """Mask and bias as one float tensor for SDPA, or the bool mask alone, or None."""
        mask = self.mask
        if self.bias is None:
            return mask
        bias = self.bias.to(self.q.dtype)
        return bias if mask is None else bias.masked_fill(~mask, float("-inf"))

    def scores(self) -> Tensor:
        """Scaled scores with bias, −inf where masked, (B,H,Q,K). Forms the full matrix."""
        call = self.factored()
        if call.alignment is not None:
            score = call.alignment.score(call.q, call.k)
        else:
            assert call.scale is not None
            score = call.q @ call.k.transpose(-1, -2) * call.scale
        if call.bias is not None:
            score = score + call.bias
        if call.mask is not None:
            score = score.masked_fill(~call.mask, float("-inf"))
        if call.is_causal:
            # As SDPA: the upper left corner is aligned, whatever the two lengths.
            allowed = torch.ones(score.shape[-2:], dtype=torch.bool, device=score.device).tril()
            score = score.masked_fill(~allowed, float("-inf"))
        return score

    def weights(self) -> Tensor:
        """Attention weights (B,H,Q,K); a row without any visible key is all zero, as in SDPA."""
        score = self.scores()
        weights = torch.softmax(score, -1)
        if self.mask is None and self.bias is None:
            return weights
        return weights.masked_fill(score.amax(-1, keepdim=True) == float("-inf"), 0.0)

    def context(self) -> Tensor:
        """What the model gets: (B,H,Q,E)."""
        call = self.factored()
        if call.alignment is None:
            return F.scaled_dot_product_attention(
                call.q, call.k, call.v, call.additive(), call.dropout, call.is_causal, scale=call.scale
            )
        return F.dropout(call.weights(), call.dropout) @ call.v


class Recorder(Protocol):
    """What an active capture offers the seam."""

    def attend(self, call: AttentionCall) -> Tensor: ...

    def residual_input(self, module: nn.Module, x: Tensor) -> None: ...


_active: list[Recorder] = []


def attend(
    module: nn.Module,
    q_BHQD: Tensor,
    k_BHKD: Tensor,
    v_BHKD: Tensor,
    mask: Tensor | None = None,
    bias: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
    alignment: Any = None,
) -> Tensor:
    """Context (B,H,Q,D) of one attention; see the module docstring and AttentionCall for the arguments."""
    call = AttentionCall(module, q_BHQD, k_BHKD, v_BHKD, mask, bias, scale, dropout, alignment)
    return _active[-1].attend(call) if _active else call.context()


def residual_input(module: nn.Module, x: Tensor) -> None:
    """Tell a capture of `convention: unnormalised` the residual input of an attention module."""
    if _active:
        _active[-1].residual_input(module, x)


@contextlib.contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Make `recorder` the active capture; captures nest, the innermost records. None changes nothing."""
    if recorder is None:
        yield
        return
    _active.append(recorder)
    try:
        yield
    finally:
        _active.pop()
