"""convention: unnormalised. The captioner's public fork saves maps from a second call of the attention on the
residual input x, while the model itself attends with norm(x); see seam.py."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.seam import AttentionCall
from attention_atlas.errors import AtlasError


class ResidualInputs:
    """Runs each selected attention module again with x in place of norm(x) and records only that call."""

    def __init__(self, record: Callable[[AttentionCall], Tensor], active: Callable[[], bool]) -> None:
        """active: whether this thread is inside the capture that `record` belongs to."""
        self._record, self._active, self._second = record, active, False
        self.inputs: dict[int, Tensor] = {}

    def attend(self, call: AttentionCall) -> Tensor:
        return self._record(call) if self._second else call.context()

    def clear(self) -> None:
        self.inputs.clear()

    @contextlib.contextmanager
    def hooks(self, modules: Mapping[str, nn.Module], wanted: Callable[[nn.Module], bool]) -> Iterator[None]:
        found = {n: m for n, m in modules.items() if hasattr(m, "attention_kind")}
        if not found:
            raise AtlasError(
                "capture: convention: 'unnormalised' needs a model that calls the seam and reports its "
                "residual input; use convention 'used'"
            )
        handles = [
            module.register_forward_hook(self._hook(name), with_kwargs=True)
            for name, module in found.items()
            if wanted(module)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if self._second or not self._active():
                return
            if id(module) not in self.inputs:
                raise AtlasError(
                    f"capture: {name}: its block did not call residual_input before it; "
                    "add that line, or use convention 'used'"
                )
            if "self" in module.attention_kind and kwargs.get("keys_values") is not None:  # type: ignore[operator]
                raise AtlasError(
                    f"capture: {name}: keys and values were made before the call, from norm(x); "
                    "run one teacher-forced pass without a cache"
                )
            x, normed = self.inputs.pop(id(module)), args[0]
            again = [x if a is normed else a for a in args]
            named = {key: x if a is normed else a for key, a in kwargs.items()}
            self._second = True
            try:
                with torch.no_grad():
                    module.forward(*again, **named)
            finally:
                self._second = False

        return hook
