"""Through transformers' attention and mask interfaces: every model class that looks its attention up there.

Both must be registered: an attention function without its mask function gets masks in the wrong form.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture import seam
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError

IMPLEMENTATION = "atlas_capture"
# Changes of the score that no AttentionCall describes.
UNSUPPORTED = ("softcap", "s_aux", "cache")


@contextlib.contextmanager
def through_interface(model: nn.Module) -> Iterator[None]:
    """Set the model's attention implementation to ours, and each of its configs back to its own on exit."""
    if "transformers" not in sys.modules:
        yield  # Then no part of the model can be of it.
        return
    from transformers import AttentionInterface, PreTrainedModel
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    roots = _roots(model, PreTrainedModel)
    if not roots:
        yield
        return
    AttentionInterface.register(IMPLEMENTATION, attention_forward)
    AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
    before: dict[int, tuple[Any, Any]] = {}
    for root in roots:
        for module in root.modules():
            if isinstance(module, PreTrainedModel):
                _remember(module.config, before)
    try:
        for root in roots:
            if any(m._can_set_attn_implementation() for m in _inner(root, PreTrainedModel)):
                with _quiet():
                    root.set_attn_implementation(IMPLEMENTATION)
        yield
    finally:
        for config, implementation in before.values():
            config._attn_implementation_internal = implementation


def _inner(root: nn.Module, kind: type) -> list[Any]:
    return [m for m in root.modules() if isinstance(m, kind)]


def _roots(model: nn.Module, kind: type) -> list[Any]:
    """The outermost transformers models in `model` (itself, or parts of a larger module)."""
    if isinstance(model, kind):
        return [model]
    return [root for child in model.children() for root in _roots(child, kind)]


def _remember(config: Any, before: dict[int, tuple[Any, Any]]) -> None:
    if id(config) in before:
        return
    before[id(config)] = (config, config._attn_implementation_internal)
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if part is not None:
            _remember(part, before)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Mixed models warn about the parts that cannot be set; those go through hooks."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention signature: (B,H,T,D) tensors in, (B,T,H,D) out; causal as its sdpa."""
    for name in UNSUPPORTED:
        if kwargs.get(name) is not None:
            raise AtlasError(
                f"capture: {type(module).__name__}: its attention uses '{name}', which a capture does not "
                "reproduce; exclude the layer with layers="
            )
    if is_causal is None:
        is_causal = bool(getattr(module, "is_causal", True))
    causal = bool(is_causal) and attention_mask is None and query.shape[2] > 1
    if causal and key.shape[2] > query.shape[2]:
        # A static cache that is longer than what it holds.
        key, value = key[:, :, : query.shape[2]], value[:, :, : query.shape[2]]
    if len(query) != len(key):
        # Learned queries have batch 1 (Q-Former).
        batch = max(len(query), len(key))
        query, key, value = (x.expand(batch, *x.shape[1:]) for x in (query, key, value))
    mask, bias = split_mask(attention_mask)
    if position_bias is not None:
        bias = position_bias if bias is None else bias + position_bias
    call = AttentionCall(module, query, key, value, mask, bias, scaling, dropout, is_causal=causal)
    context = seam._active[-1].attend(call) if seam._active else call.context()
    return context.transpose(1, 2).contiguous(), None


def split_mask(attention_mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A bool or additive float mask as (bool mask, finite bias or None).

    Additive masks write "hidden" as the type's lowest number. In a row where everything is hidden that number
    swamps the scores and the model attends uniformly: such rows keep it as a bias instead.
    """
    if attention_mask is None or attention_mask.dtype == torch.bool:
        return attention_mask, None
    hidden = attention_mask <= torch.finfo(attention_mask.dtype).min / 2
    blank = hidden.all(-1, keepdim=True) & ~torch.isneginf(attention_mask).all(-1, keepdim=True)
    mask = ~hidden | blank
    bias = attention_mask.masked_fill(~mask, 0.0)
    return mask, (bias if bool(bias.any()) else None)
