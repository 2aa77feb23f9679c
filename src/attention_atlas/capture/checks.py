"""Checks on a tiny batch that a capture sees the attention that the model uses.

Hooks on the wrong tensor, a mask in the wrong form, or attention that is computed elsewhere all give
plausible matrices. `Capture` itself compares α·V with the module's own context in each module's first call;
`validate` does more, and names the module that fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.agreement import TOLERANCE, disagreement, distance, tensors
from attention_atlas.capture.backends import choose, compute, output
from attention_atlas.capture.engine import Capture
from attention_atlas.capture.inventory import Inventory
from attention_atlas.capture.routes import captured_by
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.sites import Sites
from attention_atlas.capture.want import Want, without
from attention_atlas.errors import AtlasError

log = logging.getLogger(__name__)
EFFECT = 1e-9  # smallest relative change of the output that counts as an effect


def validate(
    model: nn.Module,
    run: Callable[[], Any],
    *,
    layers: str | Sequence[str] = "*",
    kinds: Mapping[str, str] | None = None,
    backend: str = "auto",
    tolerance: float | None = None,
    visible_BT: Tensor | None = None,
) -> list[str]:
    """Check every selected attention module of `model`. `run` does a small forward pass and returns its
    output.

    backend: that of the capture; auto checks both, because the choice depends on the size.
    tolerance: largest difference relative to typical values; None means 1e-3, and 0.02 (float16) or 0.1
    (bfloat16) where only results in half precision can be compared.
    visible_BT: positions of the output to compare; padded ones may differ.

    Logs modules whose output the model does not use (the last layer of some vision towers), because their
    attention has no effect. Returns the names checked. Raises AtlasError naming module and check.
    """
    was_training = model.training
    model.eval()
    capture = Capture(model, ["lse"], layers=layers, kinds=kinds, backend=backend)
    checker = _Checker(capture, tolerance)
    try:
        with torch.no_grad():
            plain = tensors(run(), visible_BT)
            if any(bool(t.isnan().any()) for t in plain):
                _fail(type(model).__name__, "plain output", "is not finite; check weights and inputs")
            inventory = Inventory(capture.sites.modules)
            with inventory:
                captured = _under(model, checker, run, visible_BT)
            _check_inventory(model, capture.sites, inventory, checker)
            limit = max(tolerance or 0.0, *(TOLERANCE.get(t.dtype, 0.0) for t in plain), 0.0)
            if distance(plain, captured) > limit:
                _blame(model, checker, run, visible_BT, plain, limit)
            for name in checker.checked:
                moved = _under(model, _Noise(capture.sites, name), run, visible_BT)
                if distance(plain, moved) > EFFECT:
                    continue
                if distance(plain, _disturbed(checker.modules[name], run, visible_BT)) > EFFECT:
                    _fail(name, "effect", "replacing its context by noise does not change the output")
                log.warning("capture: %s: the model's output does not depend on this module", name)
    finally:
        model.train(was_training)
    return checker.checked


def _under(model: nn.Module, recorder: Any, run: Callable[[], Any], visible: Tensor | None) -> list[Tensor]:
    with captured_by(recorder, model):
        return tensors(run(), visible)


def _check_inventory(model: nn.Module, sites: Sites, inventory: Inventory, checker: _Checker) -> None:
    outside = [n for n in inventory.outside if sites.wanted_name(n) and n not in checker.seen]
    if outside:
        raise AtlasError(
            f"capture: {', '.join(outside)}: check 'inventory': attention does not pass through the capture; "
            f"leave it out with layers={without(outside)}, or see docs/capture.md on adding a class"
        )
    if not checker.checked:
        seen = ", ".join(sorted(checker.seen)) or "no attention"
        _fail(type(model).__name__, "calls", f"layers {', '.join(sites.layers)} match none of: {seen}")


def _blame(
    model: nn.Module,
    checker: _Checker,
    run: Callable[[], Any],
    visible: Tensor | None,
    plain: list[Tensor],
    limit: float,
) -> None:
    """Fail with the name of the first module whose capture changes the output."""
    for name in checker.checked:
        error = distance(plain, _under(model, _One(checker, name), run, visible))
        if error > limit:
            _fail(name, "same output", f"its capture changes the model's output by {error:.1e}")
    again = distance(plain, tensors(run(), visible))
    reason = "no two passes are equal; fix its seed" if again > limit else "differs from the plain model's"
    _fail(type(model).__name__, "same output", reason)


def _disturbed(module: nn.Module, run: Callable[[], Any], visible: Tensor | None) -> list[Tensor]:
    """The model's output when noise replaces the output of `module`."""

    def noise(x: Any) -> Any:
        if isinstance(x, tuple):
            return tuple(noise(item) for item in x)
        return _noise(x) if isinstance(x, Tensor) and x.is_floating_point() else x

    handle = module.register_forward_hook(lambda _, __, out: noise(out))
    try:
        return tensors(run(), visible)
    finally:
        handle.remove()


def _noise(x: Tensor) -> Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)


def _fail(name: str, check: str, what: str) -> None:
    raise AtlasError(
        f"capture: {name}: check '{check}': {what}; exclude it with layers=['*', '!name'] or correct how "
        "it is captured"
    )


class _Checker:
    """Checks every call, and returns the same context as a capture."""

    def __init__(self, capture: Capture, tolerance: float | None) -> None:
        self.sites, self.backend, self.tolerance = capture.sites, capture.backend, tolerance
        self.checked: list[str] = []
        self.modules: dict[str, nn.Module] = {}
        self.seen: set[str] = set()

    def wants(self, module: nn.Module) -> bool:
        name = self.sites.site(module)[0]
        self.seen.add(name)
        return id(module) in self.sites.names and self.sites.wanted(module)

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """Not needed here: the checks are about the attention that the model uses."""

    def attend(self, call: AttentionCall) -> Tensor:
        name = self.sites.site(call.module)[0]
        with torch.autocast(call.q.device.type, enabled=False):
            made, how = self._compare(name, call)
        if name not in self.modules:
            self.checked.append(name)
            self.modules[name] = call.module
        return output(call, made, how, self.backend)

    def _compare(self, name: str, call: AttentionCall) -> tuple[Tensor | None, str]:
        """(α·V, back end) of the comparison made last; None for an empty call."""
        factored = call.factored()
        weights = factored.in_float32().weights()
        expected = (*call.q.shape[:3], call.k.shape[2])
        if weights.shape != expected:
            _fail(name, "shape", f"weights are {tuple(weights.shape)}, expected (B,H,Q,K) = {expected}")
        sums = weights.sum(-1)
        off = (sums - 1).clamp(min=0) if call.sink is not None else torch.minimum((sums - 1).abs(), sums)
        if not bool((off <= 1e-3).all()) or not bool((weights >= 0).all()):
            _fail(name, "rows", "do not sum to 1")
        made, how = None, ""
        for want, reference in _references(factored, weights):
            for how in dict.fromkeys(choose(factored, want, b)[0] for b in self._backends()):
                values, made = compute(factored, want, None, how)
                for statistic, value in reference.items():
                    error = float((values[statistic] - value).nan_to_num(neginf=0.0).abs().max())
                    if error > 1e-4 * max(1.0, _size(reference["lse"])):
                        _fail(name, f"{statistic}, {how}", f"differs from the matrix by {error:.1e}")
                assert made is not None
                wrong = disagreement(call, made, self.tolerance)
                if wrong:
                    _fail(name, "weights times values", f"by the back end {how} they {wrong}")
        return made, how

    def _backends(self) -> tuple[str, ...]:
        chosen = self.backend
        return ("materialised", "fused") if chosen == "auto" else (chosen,)


def _size(lse: Tensor) -> float:
    finite = lse[torch.isfinite(lse)].abs()
    return float(finite.max()) if finite.numel() else 0.0


def _references(factored: AttentionCall, weights: Tensor) -> Iterator[tuple[Want, dict[str, Tensor]]]:
    """Requests, and their results from the matrix. An empty call has nothing to check."""
    if not weights.numel():
        return
    batch, keys = len(weights), weights.shape[-1]
    member_BKG = torch.stack([torch.arange(keys) % 2 == 0, torch.arange(keys) > 0], -1).expand(batch, -1, -1)
    member_BKG = member_BKG.to(weights.device)
    ends_B2 = torch.tensor([[0, -1]], device=weights.device).expand(batch, -1)
    rows_B2, columns_B2 = (ends_B2 % n for n in weights.shape[2:])
    exact = factored.in_float32().sink_as_key()
    lse = exact.scores().logsumexp(-1)
    full = torch.exp(exact.scores() - lse[..., None]).nan_to_num(nan=0.0)
    values = {
        "lse": lse,
        "entropy": -torch.xlogy(full, full).sum(-1),
        "mass": weights @ member_BKG[:, None].to(weights),
        "received": weights.sum(-2),
        "rows": weights[:, :, rows_B2[0]],
        "columns": weights[..., columns_B2[0]],
    }
    yield Want(frozenset(values), rows_B2, columns_B2, None, member_BKG), values
    # Entropy may rule out the fused pass; it still computes the other statistics.
    entropy = values.pop("entropy")
    yield Want(frozenset(values), rows_B2, columns_B2, None, member_BKG), values
    if weights.is_cuda:
        # The kernel of one pass computes no column sums.
        del values["received"]
        values["entropy"] = entropy
        yield Want(frozenset(values), rows_B2, columns_B2, None, member_BKG), values


class _One:
    """The checker for a single module; the others run without a capture."""

    def __init__(self, checker: _Checker, target: str) -> None:
        self.checker, self.target = checker, target

    def wants(self, module: nn.Module) -> bool:
        return self.checker.wants(module) and self.checker.sites.site(module)[0] == self.target

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """Not needed here."""

    def attend(self, call: AttentionCall) -> Tensor:
        return self.checker.attend(call)


class _Noise:
    """Gives one module noise in place of its context."""

    def __init__(self, sites: Sites, target: str) -> None:
        self.sites, self.target = sites, target

    def wants(self, module: nn.Module) -> bool:
        return self.sites.site(module)[0] == self.target

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        """Not needed here."""

    def attend(self, call: AttentionCall) -> Tensor:
        return _noise(call.context())
