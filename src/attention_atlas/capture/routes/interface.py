"""The route for all model classes that look up their attention function in transformers' attention interface.

While a capture is active, a look-up returns the requested function, wrapped. Configurations, masks and
attention computed elsewhere are unchanged, so the model computes the same as without a capture.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture import seam
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError

IMPLEMENTATIONS = ("eager", "sdpa")

_lock = threading.Lock()
_open = 0
_undo: list[Callable[[], None]] = []


@contextlib.contextmanager
def through_interface() -> Iterator[None]:
    """Wrap what transformers' attention interface returns; threads without a capture are unaffected."""
    global _open
    if sys.modules.get("transformers") is None:
        yield  # then no module can come from it
        return
    from transformers import AttentionInterface

    with _lock:
        if _open == 0:
            _patch(AttentionInterface)
        _open += 1
    try:
        yield
    finally:
        with _lock:
            _open -= 1
            while _open == 0 and _undo:
                _undo.pop()()


def _patch(interface: Any) -> None:
    """Most models call `get_interface(name, eager function)`, a few `[name]`."""
    plain_get, plain_item = interface.get_interface, interface.__getitem__
    inherits = "__getitem__" not in vars(interface)

    def get_interface(self: Any, attn_implementation: str, default: Callable[..., Any]) -> Any:
        return _wrap(plain_get(self, attn_implementation, default), attn_implementation)

    def item(self: Any, key: str) -> Any:
        return _wrap(plain_item(self, key), key)

    def undo() -> None:
        interface.get_interface = plain_get
        if inherits:
            del interface.__getitem__
        else:
            interface.__getitem__ = plain_item

    interface.get_interface, interface.__getitem__ = get_interface, item
    _undo.append(undo)


def _wrap(function: Callable[..., Any], implementation: str | None) -> Callable[..., Any]:
    if seam.current() is None or (
        isinstance(function, functools.partial) and function.func is attend_interface
    ):
        return function
    return functools.partial(attend_interface, function, implementation or "eager")


def attend_interface(
    function: Callable[..., Any],
    implementation: str,
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None = None,
    *more: Any,
    **kwargs: Any,
) -> tuple[Tensor, Any]:
    """`function` is transformers' own: (B,H,T,D) tensors in, (B,T,H,D) and weights (or None) out.

    `function` itself computes modules that the active capture does not select. Raises AtlasError for a
    selected module whose computation no AttentionCall describes.
    """
    recorder = seam.current()
    if recorder is None or not seam.wants(recorder, module):
        return function(module, query, key, value, attention_mask, *more, **kwargs)
    _check(module, implementation, query, kwargs)

    def compute(exact: bool) -> Any:
        if not exact:
            return function(module, query, key, value, attention_mask, *more, **kwargs)
        tensors = [_exact(x) for x in (query, key, value)]
        named = {name: _exact(x) for name, x in kwargs.items()}
        return function(module, *tensors, _exact_mask(attention_mask), *map(_exact, more), **named)

    def plain(exact: bool) -> Tensor:
        return compute(exact)[0].transpose(1, 2)

    weights, own = None, None
    # Eager functions ignore `is_causal`, sdpa ignores sinks.
    causal, sink = False, None
    if implementation == "eager":
        context, weights = compute(False)
        own, sink = context.transpose(1, 2), kwargs.get("s_aux")
    else:
        given = kwargs.get("is_causal")
        causal = bool(getattr(module, "is_causal", True) if given is None else given)
        causal = causal and attention_mask is None and query.shape[2] > 1
    q, k, v = query, key, value
    if causal and k.shape[2] > q.shape[2]:
        # A static cache that is only partly filled.
        k, v = k[:, :, : q.shape[2]], v[:, :, : q.shape[2]]
    if len(q) != len(k):
        # Learned queries have batch 1 (Q-Former).
        batch = max(len(q), len(k))
        q, k, v = (x.expand(batch, *x.shape[1:]) for x in (q, k, v))
    mask, bias, q = split_mask(attention_mask, q, sink is not None)
    position_bias = kwargs.get("position_bias")
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    call = AttentionCall(
        module, q, k, v, mask, bias, kwargs.get("scaling"), float(kwargs.get("dropout") or 0.0),
        is_causal=causal, softcap=kwargs.get("softcap"), sink=sink, own=own, plain=plain,
        own_weights=weights,
    )  # fmt: skip
    return recorder.attend(call).transpose(1, 2).contiguous(), weights


def _check(module: nn.Module, implementation: str, query: Tensor, kwargs: dict[str, Any]) -> None:
    name, leave = type(module).__name__, "exclude the layer with layers=['*', '!name']"
    if implementation not in IMPLEMENTATIONS:
        raise AtlasError(
            f"capture: {name}: attention implementation '{implementation}' cannot be captured; call "
            "model.set_attn_implementation('sdpa') (or 'eager') before the capture"
        )
    if query.ndim != 4:
        raise AtlasError(
            f"capture: {name}: queries have shape {tuple(query.shape)}, expected (B,H,Q,D); {leave}"
        )
    if kwargs.get("cache") is not None:
        raise AtlasError(f"capture: {name}: its keys are in a paged cache, which is not supported; {leave}")
    if kwargs.get("softcap") is not None and kwargs.get("s_aux") is not None:
        raise AtlasError(f"capture: {name}: has both a softcap and sinks, which is not supported; {leave}")


def _exact(x: Any) -> Any:
    half = isinstance(x, Tensor) and x.dtype in (torch.float16, torch.bfloat16)
    return x.float() if half else x


def _exact_mask(mask: Tensor | None) -> Tensor | None:
    """An additive mask in float32; hidden entries stay at the lowest number of the type."""
    if mask is None or mask.dtype not in (torch.float16, torch.bfloat16):
        return mask
    return mask.float().masked_fill(_hidden(mask), torch.finfo(torch.float32).min)


def _hidden(mask: Tensor) -> Tensor:
    return mask <= torch.finfo(mask.dtype).min / 2


def split_mask(
    attention_mask: Tensor | None, query: Tensor, sink: bool = False
) -> tuple[Tensor | None, Tensor | None, Tensor]:
    """(bool mask, finite bias or None, query) of a bool or additive float mask.

    Additive masks mark hidden keys with the type's lowest number. In a row where everything is hidden it
    swamps the scores, and the model attends uniformly unless a sink takes all: such a row becomes one with
    all keys visible and a query of 0.
    """
    if attention_mask is None or attention_mask.dtype == torch.bool:
        return attention_mask, None, query
    mask = ~_hidden(attention_mask)
    if not sink:
        blank = ~mask.any(-1, keepdim=True) & ~torch.isneginf(attention_mask).all(-1, keepdim=True)
        mask = mask | blank
        query = query.masked_fill(blank, 0.0) if bool(blank.any()) else query
        attention_mask = attention_mask.masked_fill(blank, 0.0)
    bias = attention_mask.masked_fill(~mask, 0.0)
    return mask, (bias if bool(bias.any()) else None), query
