"""The only place where the project's models compute attention, so that a capture can record it.

They call `attend` and never apply softmax to attention scores themselves:

    context_BHQD = attend(self, q_BHQD, k_BHKD, v_BHKD, mask=mask, bias=bias)

`self` is the nn.Module that owns this attention; it has `attention_kind` (str, e.g. "cross") and
`layer_index` (int, 0-based). Without an active capture `attend` is `F.scaled_dot_product_attention`. With
one, the capture sees the same tensors and must return the same context.

The first author's public fork saves its maps from a second call of the attention on the residual input x,
although the model itself uses norm(x). To let a capture reproduce that (`convention: unnormalised`), the
block that owns the residual connection reports x before it calls the attention:

    residual_input(self.attention, x)                   # does nothing unless such a capture is active
    x = x + self.attention(self.norm(x), memory, mask=mask)

The capture then calls the attention a second time with x in place of norm(x) (its first argument,
wherever that very tensor object occurs; so for self-attention pass `source=None` or the same tensor
twice), records that call, and leaves the model's own computation alone. For a kind that contains "self"
do not supply precomputed keys and values in such a pass; the capture refuses it, because they would
come from norm(x).

Axis letters: B batch, H head, Q query = target, K key = source, D head size.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass
class AttentionCall:
    """One attention computation, in the form that all back ends use.

    q_BHQD, k_BHKD, v_BHKE: heads already split; k and v may have fewer heads than q (grouped queries).
    mask: bool, broadcastable to (B,H,Q,K), True = may attend. bias: float, added to the scaled score.
    scale: None means 1/sqrt(D). alignment: None for the dot product, else an object with either
    `factor(q, k) -> (q', k', scale)`, which keeps the score a scaled dot product, or
    `score(q, k) -> score_BHQK`, which replaces q·k·scale and scores each (query, key) pair independently.
    softcap: None, or c where the scaled score s becomes c·tanh(s/c) before bias and mask (Gemma 2).
    sink: None, or (H,) logits of one more key that belongs to no token (GPT-OSS); weights of a row then sum
    to 1 minus the share of the sink.
    own: (B,H,Q,E) as computed by the module itself, if the route has it. plain: a function that computes it,
    with float32 inputs if its argument is true. Without both, the context is SDPA's. own_weights: (B,H,Q,K)
    as the module's eager function returns them, if it does.
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
    softcap: float | None = None
    sink: Tensor | None = None
    own: Tensor | None = None
    plain: Callable[[bool], Tensor] | None = None
    own_weights: Tensor | None = None

    def factored(self) -> AttentionCall:
        """The same call with `alignment.factor` applied and the heads of k and v repeated to match q."""
        q, k, scale, alignment = self.q, self.k, self.scale, self.alignment
        if alignment is not None and hasattr(alignment, "factor"):
            q, k, scale = alignment.factor(q, k)
            alignment = None
        repeat = q.shape[1] // max(1, k.shape[1])
        v = self.v
        if repeat > 1:
            k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        if scale is None:
            scale = q.shape[-1] ** -0.5
        return dataclasses.replace(
            self, q=q, k=k, v=v, scale=scale, alignment=alignment, own=None, plain=None, own_weights=None
        )

    def in_float32(self) -> AttentionCall:
        """The same call with half-precision tensors in float32."""

        def exact(x: Tensor | None) -> Any:
            half = x is not None and x.dtype in (torch.float16, torch.bfloat16)
            return x.float() if half and x is not None else x

        changed = {name: exact(getattr(self, name)) for name in ("q", "k", "v", "bias", "sink")}
        return dataclasses.replace(self, **changed)

    def explicit(self) -> AttentionCall:
        """The same call with an explicit causal mask in place of `is_causal`."""
        if not self.is_causal:
            return self
        shape = (self.q.shape[-2], self.k.shape[-2])
        causal = torch.ones(shape, dtype=torch.bool, device=self.q.device).tril()[None, None]
        mask = causal if self.mask is None else self.mask & causal
        return dataclasses.replace(self, mask=mask, is_causal=False)

    def sink_as_key(self) -> AttentionCall:
        """The same factored call with the sink appended as a key whose value is 0.

        Its logit becomes an extra dimension of queries and keys, so that every back end can compute it.
        """
        if self.sink is None:
            return self
        call = self.explicit()
        assert call.sink is not None and call.scale is not None
        batch, heads, keys, size = call.k.shape
        q = F.pad(call.q, (0, 1), value=1 / call.scale)
        sink_B11D = F.pad(call.sink.to(q).reshape(1, heads, 1, 1), (size, 0)).expand(batch, -1, -1, -1)
        k = torch.cat([F.pad(call.k, (0, 1)), sink_B11D], 2)
        v = F.pad(call.v, (0, 0, 0, 1))

        def widen(x: Tensor | None, value: float) -> Tensor | None:
            return None if x is None else F.pad(x.expand(*x.shape[:-1], keys), (0, 1), value=value)

        mask, bias = widen(call.mask, True), widen(call.bias, 0.0)
        return dataclasses.replace(call, q=q, k=k, v=v, mask=mask, bias=bias, sink=None)

    def cap(self, score: Tensor) -> Tensor:
        """The scaled scores, with the softcap if there is one."""
        return score if self.softcap is None else self.softcap * torch.tanh(score / self.softcap)

    def additive(self) -> Tensor | None:
        """Mask and bias as one float tensor for SDPA, or the bool mask alone, or None."""
        mask = self.mask
        if self.bias is None:
            return mask
        bias = self.bias.to(self.q.dtype)
        return bias if mask is None else bias.masked_fill(~mask, float("-inf"))

    def scores(self) -> Tensor:
        """Scaled scores with bias, −inf where masked, (B,H,Q,K). Forms the full matrix."""
        # Causal as in SDPA: aligned at the upper left corner for any Q and K.
        call = self.factored().explicit()
        if call.alignment is not None:
            score = call.alignment.score(call.q, call.k)
        else:
            assert call.scale is not None
            score = call.cap(call.q @ call.k.transpose(-1, -2) * call.scale)
        if call.bias is not None:
            score = score + call.bias
        if call.mask is not None:
            score = score.masked_fill(~call.mask, float("-inf"))
        return score

    def weights(self) -> Tensor:
        """Attention weights (B,H,Q,K); a row without any visible key is all zero, as in SDPA."""
        score = self.scores()
        if self.sink is not None:
            sink = self.sink.to(score).reshape(1, -1, 1, 1).expand(*score.shape[:3], 1)
            return torch.softmax(torch.cat([score, sink], -1), -1)[..., :-1]
        weights = torch.softmax(score, -1)
        if self.mask is None and self.bias is None:
            return weights
        return weights.masked_fill(torch.isneginf(score).all(-1, keepdim=True), 0.0)

    def context(self) -> Tensor:
        """The context without a capture: (B,H,Q,E)."""
        if self.own is not None:
            return self.own
        if self.plain is not None:
            return self.plain(False)
        call = self.factored()
        if call.mask is not None or call.bias is not None:
            call = call.explicit()
        if call.alignment is None and call.softcap is None and call.sink is None:
            return F.scaled_dot_product_attention(
                call.q, call.k, call.v, call.additive(), call.dropout, call.is_causal, scale=call.scale
            )
        return F.dropout(call.weights(), call.dropout) @ call.v


class Recorder(Protocol):
    """The interface of an active capture. An optional method `wants(module) -> bool` selects modules; the
    others compute as without a capture."""

    def attend(self, call: AttentionCall) -> Tensor: ...

    def residual_input(self, module: nn.Module, x: Tensor) -> None: ...


# Per thread and asynchronous task, so that a capture never records another thread's computations.
_active: ContextVar[Recorder | None] = ContextVar("attention_atlas_recorder", default=None)
_locks: weakref.WeakKeyDictionary[nn.Module, threading.RLock] = weakref.WeakKeyDictionary()
_locks_lock = threading.Lock()


def current() -> Recorder | None:
    """The active capture of this thread: the innermost, or None.

    None in code traced by torch.compile, which cannot read a context variable; a capture runs the model
    uncompiled (routes/__init__.py).
    """
    return None if torch.compiler.is_compiling() else _active.get()


def wants(recorder: Recorder, module: nn.Module) -> bool:
    """Whether `recorder` selects this attention module."""
    ask = getattr(recorder, "wants", None)
    return ask is None or bool(ask(module))


def in_backward() -> bool:
    """Whether this thread is in a backward pass; a forward pass then recomputes a gradient checkpoint."""
    return bool(torch._C._current_graph_task_id() != -1)


def lock_of(model: nn.Module) -> threading.RLock:
    """The lock that a capture holds while its hooks are installed on `model`."""
    with _locks_lock:
        return _locks.setdefault(model, threading.RLock())


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
    """Context (B,H,Q,D) of one attention call; see AttentionCall for the arguments."""
    call = AttentionCall(module, q_BHQD, k_BHKD, v_BHKD, mask, bias, scale, dropout, alignment)
    recorder = current()
    if recorder is None or not wants(recorder, module):
        return call.context()
    return recorder.attend(call)


def residual_input(module: nn.Module, x: Tensor) -> None:
    """Report an attention module's residual input to a capture with `convention: unnormalised`."""
    recorder = current()
    if recorder is not None:
        recorder.residual_input(module, x)


@contextlib.contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Make `recorder` the active capture; captures nest, the innermost records. None has no effect."""
    if recorder is None:
        yield
        return
    token = _active.set(recorder)
    try:
        yield
    finally:
        _active.reset(token)
