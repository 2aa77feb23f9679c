"""Query, key and value hooks for model classes that compute attention inline.

The module runs unchanged; hooks on its three projections record q, k and v, and a hook on the module passes
the call to the capture, whose context replaces the module's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attention_atlas.capture import seam
from attention_atlas.capture.routes.interface import split_mask
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError


@dataclass(frozen=True)
class Hooked:
    """How a class computes attention: names of its projections, of its additive mask argument (and that
    argument's position), and of the attribute with the number of heads."""

    mask_position: int
    query: str = "query"
    key: str = "key"
    value: str = "value"
    mask: str = "attention_mask"
    heads: str = "num_attention_heads"


# By class name, to avoid importing transformers. `know` adds more.
KNOWN: dict[str, Hooked] = {
    "ViltSelfAttention": Hooked(mask_position=1),
    "LxmertAttention": Hooked(mask_position=2),
    "VisualBertSelfAttention": Hooked(mask_position=1),
    "FlavaSelfAttention": Hooked(mask_position=1),
}


def know(class_name: str, how: Hooked) -> None:
    """Add a class that computes attention inline as softmax(q·k/√D + mask)·v."""
    KNOWN[class_name] = how


@contextlib.contextmanager
def hook_modules(model: nn.Module, recorder: seam.Recorder) -> Iterator[None]:
    """Hook every known module of the model for one recorder; hooks are removed on exit."""
    handles: list[Any] = []
    try:
        for name, module in model.named_modules():
            how = KNOWN.get(type(module).__name__)
            if how is not None:
                _hook(name, module, how, handles, recorder)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(name: str, module: nn.Module, how: Hooked, handles: list[Any], recorder: seam.Recorder) -> None:
    taken: dict[str, Tensor] = {}
    heads = int(getattr(module, how.heads))

    def take(part: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            # Another thread, or a capture inside this one, has hooks of its own.
            if seam.current() is recorder:
                # (B,T,H·D) to (B,H,T,D)
                taken[part] = output.unflatten(-1, (heads, -1)).transpose(1, 2)

        return hook

    for part in ("query", "key", "value"):
        handles.append(module.get_submodule(getattr(how, part)).register_forward_hook(take(part)))

    def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        if seam.current() is not recorder:
            return None
        if not seam.wants(recorder, module):
            taken.clear()
            return None
        if len(taken) != 3:
            raise AtlasError(
                f"capture: {name}: the module did not call its projections; it does not compute attention as "
                f"routes/hooks.py expects of {type(module).__name__}"
            )
        position = how.mask_position
        additive = kwargs.get(how.mask, args[position] if len(args) > position else None)
        mask, bias, query = split_mask(additive, taken["query"])
        drop = getattr(module, "dropout", None)
        dropout = float(drop.p) if isinstance(drop, nn.Dropout) and module.training else 0.0
        plain = output[0] if isinstance(output, tuple) else output
        call = AttentionCall(
            module,
            query,
            taken["key"],
            taken["value"],
            mask,
            bias,
            dropout=dropout,
            own=plain.unflatten(-1, (heads, -1)).transpose(1, 2),
        )
        context = recorder.attend(call).transpose(1, 2).flatten(-2)
        taken.clear()
        return (context, *output[1:]) if isinstance(output, tuple) else context

    handles.append(module.register_forward_hook(after, with_kwargs=True))
