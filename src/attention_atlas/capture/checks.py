"""Checks on a tiny batch that what a capture sees is the attention that the model uses.

Hooks on the wrong tensor, a mask in the wrong form, or an attention that is computed elsewhere all give
plausible matrices. So before a capture is trusted: every call has the right shape, its rows sum to 1, α·V is
the module's own context, the model's output under the capture is the plain one, and replacing α by random
weights, one module at a time, changes that output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.engine import Capture
from attention_atlas.capture.routes import open_routes
from attention_atlas.capture.seam import AttentionCall, recording
from attention_atlas.errors import AtlasError


def validate(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    layers: str | Sequence[str] = "*",
    kinds: Mapping[str, str] | None = None,
    tolerance: float = 1e-4,
    visible_BT: Tensor | None = None,
) -> list[str]:
    """Check every wanted attention module of `model`; `run` does one small forward and returns its output.

    tolerance: relative to the largest absolute value. visible_BT: positions to compare, where padded ones
    may differ between implementations. Returns the names checked. Raises AtlasError naming module and check.
    """
    was_training = model.training
    model.eval()
    sites = Capture(model, ["lse"], layers=layers, kinds=kinds)
    try:
        with torch.no_grad():
            plain = tensors(run(), visible_BT)
            if not all(bool(torch.isfinite(t).all()) for t in plain):
                _fail(type(model).__name__, "plain output", "is not finite; check weights and inputs")
            checker = _Checker(sites, tolerance)
            captured = _under(model, checker, run, visible_BT)
            if not checker.checked:
                _fail(
                    type(model).__name__, "calls", f"layers '{layers}' match none of {sorted(checker.seen)}"
                )
            error = distance(plain, captured)
            if error > tolerance:
                # Name the first module whose replacement by the capture changes the output.
                _fail(checker.checked[0], "same output", f"differs from the plain model's by {error:.1e}")
            for name in checker.movable:
                moved = _under(model, _Randomiser(sites, name), run, visible_BT)
                if distance(plain, moved) <= 1e-9:
                    _fail(
                        name, "random weights", "leave the output as it is: its attention has no effect here"
                    )
    finally:
        model.train(was_training)
    return checker.checked


def _under(model: nn.Module, recorder: Any, run: Callable[[], Any], visible: Tensor | None) -> list[Tensor]:
    with open_routes(model), recording(recorder):
        return tensors(run(), visible)


def tensors(output: Any, visible_BT: Tensor | None = None) -> list[Tensor]:
    """All float tensors in a model's output, at the visible positions where it has such an axis."""
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            return []
        if visible_BT is not None and output.shape[:2] == visible_BT.shape:
            output = output[visible_BT.bool()]
        return [output.float()]
    if isinstance(output, Mapping):
        output = list(output.values())
    if isinstance(output, list | tuple):
        return [t for item in output for t in tensors(item, visible_BT)]
    return []


def distance(a: list[Tensor], b: list[Tensor]) -> float:
    """Largest difference, relative to the largest absolute value of each tensor; inf where shapes differ."""
    if [t.shape for t in a] != [t.shape for t in b]:
        return float("inf")
    errors = [float((x - y).abs().max() / (x.abs().max() + 1e-12)) for x, y in zip(a, b) if x.numel()]
    return max(errors, default=0.0)


def _fail(name: str, check: str, what: str) -> None:
    raise AtlasError(
        f"capture: {name}: check '{check}': {what}; exclude it with layers= or correct how it is captured"
    )


class _Checker:
    """Looks at every call; the context it returns is α·V, so that the output shows whether α is right."""

    def __init__(self, sites: Capture, tolerance: float) -> None:
        self.sites, self.tolerance = sites, tolerance
        self.checked: list[str] = []
        self.movable: list[str] = []
        self.seen: set[str] = set()

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """Not needed here: the check is about the attention that the model uses."""

    def attend(self, call: AttentionCall) -> Tensor:
        name, _, _ = self.sites.site(call.module)
        self.seen.add(name)
        if not self.sites._wanted(call.module):
            return call.context()
        factored = call.factored()
        weights = factored.weights()
        expected = (*call.q.shape[:3], call.k.shape[2])
        if weights.shape != expected:
            _fail(name, "shape", f"weights are {tuple(weights.shape)}, expected (B,H,Q,K) = {expected}")
        sums = weights.float().sum(-1)
        off = torch.minimum((sums - 1).abs(), sums.abs())
        if not bool((off <= 1e-3).all()) or not bool((weights >= 0).all()):
            _fail(name, "rows", "do not sum to 1")
        made = weights @ factored.v
        own = call.context() if call.own is None else call.own
        if made.shape != own.shape or distance([own.float()], [made.float()]) > self.tolerance:
            _fail(name, "weights times values", "are not what the module computed")
        if name not in self.checked:
            self.checked.append(name)
            if bool(((weights > 0).sum(-1) > 1).any()):
                self.movable.append(name)
        return made


class _Randomiser:
    """Replaces the weights of one module by random ones over the keys it may see."""

    def __init__(self, sites: Capture, target: str) -> None:
        self.sites, self.target = sites, target
        self.generator = torch.Generator().manual_seed(0)

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """Not needed here."""

    def attend(self, call: AttentionCall) -> Tensor:
        if self.sites.site(call.module)[0] != self.target:
            return call.context()
        factored = call.factored()
        weights = factored.weights()
        noise = torch.rand(weights.shape, generator=self.generator).to(weights) * (weights > 0)
        return noise / noise.sum(-1, keepdim=True).clamp(min=1e-12) @ factored.v
