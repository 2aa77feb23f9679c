"""`Capture`: run a model and keep statistics of its attention.

    capture = Capture(model, ["mass", "entropy"], groups=role_groups(roles))
    captured = capture(**inputs)                    # or: with capture: model(**inputs); capture.result()
    captured["model.layers.*.self_attn"].mass       # (B,L,H,Q,G)

The model's own output is unchanged. A capture records one forward pass (a new call of the model starts anew);
for generated text do one teacher-forced pass over it rather than capture every step.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture import seam
from attention_atlas.capture.backends import BACKENDS, compute
from attention_atlas.capture.groups import Groups
from attention_atlas.capture.projection import output_weight_HDM
from attention_atlas.capture.residual import ResidualInputs
from attention_atlas.capture.result import Captured, Record
from attention_atlas.capture.routes import open_routes
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import (
    NEEDS_GROUPS,
    NEEDS_PROJECTION,
    NEEDS_ROWS,
    Want,
    check_names,
    for_kind,
    indices,
)
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

log = logging.getLogger(__name__)
CONVENTIONS = ("used", "unnormalised")


class Capture:
    """statistics: names of want.py. groups, rows, columns, pairs, queries: one value for all kinds, or {kind
    glob: value}; rows and columns are positions (n,) or (B,n), pairs (n,2) or (B,n,2), negative from the end;
    queries is bool (B,Q), the queries that count in `received` (leave out padding).

    backend: auto | fused | materialised. layers: glob, or several, over module names and "kind.layer".
    kinds: {your name: glob over module names}; else a module's `attention_kind`, or its name with the layer
    number replaced by *. convention: used, or unnormalised (see seam.py). projections: {module glob: path of
    its output projection}, where it is not found by itself. Raises AtlasError when nothing matches.
    """

    def __init__(
        self,
        model: nn.Module,
        statistics: Sequence[str] = ("mass", "entropy"),
        *,
        groups: Groups | Mapping[str, Groups] | None = None,
        rows: Any = None,
        columns: Any = None,
        pairs: Any = None,
        queries: Any = None,
        backend: str = "auto",
        layers: str | Sequence[str] = "*",
        kinds: Mapping[str, str] | None = None,
        convention: str = "used",
        projections: Mapping[str, str] | None = None,
    ) -> None:
        self.model, self.names = model, check_names(statistics)
        self.groups, self.rows, self.columns, self.pairs = groups, rows, columns, pairs
        self.queries, self.backend, self.convention = queries, backend, convention
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        self.kinds, self.projections = dict(kinds or {}), dict(projections or {})
        for field, value, known in (
            ("backend", backend, BACKENDS),
            ("convention", convention, CONVENTIONS),
        ):
            if value not in known:
                raise ConfigError(f"capture: {field}: '{value}' is unknown{did_you_mean(value, known)}")
        for needed, what, given in (
            (NEEDS_GROUPS, "groups", groups),
            (NEEDS_ROWS, "rows", rows),
            ({"columns"}, "columns", columns),
            ({"pairs"}, "pairs", pairs),
        ):
            if given is None and not self.names.isdisjoint(needed):
                wanted = ", ".join(sorted(self.names & set(needed)))
                raise ConfigError(f"capture: {what}: needed for {wanted}; pass {what}=")
        self._modules = dict(model.named_modules())
        self._name = {id(module): name for name, module in self._modules.items()}
        self._weights: dict[str, Tensor] = {}
        self._told: set[tuple[str, str]] = set()
        self._exit: contextlib.ExitStack | None = None
        self._residual: ResidualInputs | None = None
        self._reset()

    def _reset(self) -> None:
        self._records: list[Record] = []
        self._seen: list[str] = []
        self._calls: dict[str, int] = {}

    # Use ---------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **inputs: Any) -> Captured:
        """Run the model's forward (without gradients) and return what was captured."""
        return self.run(lambda: self.model(*args, **inputs))

    def run(self, function: Callable[[], Any]) -> Captured:
        """Run `function`, which calls the model somehow, and return what was captured."""
        with self, torch.no_grad():
            output = function()
        return self.result(output)

    def __enter__(self) -> Capture:
        with contextlib.ExitStack() as stack:
            self._reset()
            stack.enter_context(open_routes(self.model))
            if self.convention == "unnormalised":
                self._residual = ResidualInputs(self._record)
                stack.enter_context(self._residual.hooks(self._modules, self._wanted))
            handle = self.model.register_forward_pre_hook(lambda *_: self._reset())
            stack.callback(handle.remove)
            stack.enter_context(seam.recording(self))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self._exit is not None
        self._exit.close()
        self._exit = None
        if self._residual is not None:
            self._residual.clear()

    def result(self, output: Any = None) -> Captured:
        """What the last forward pass left. Raises AtlasError when no attention was seen or none matched."""
        if not self._seen:
            raise AtlasError(
                f"capture: {type(self.model).__name__}: no attention passed through the capture; run the "
                "model inside it, and see docs/capture.md for the model classes that it knows"
            )
        if not self._records:
            pattern = ", ".join(self.layers)
            raise AtlasError(
                f"capture: layers: '{pattern}' matches nothing{did_you_mean(pattern, self._seen)}"
            )
        return Captured.build(self._records, output)

    # What the seam calls ------------------------------------------------------------------------------

    def attend(self, call: AttentionCall) -> Tensor:
        if self._residual is not None:
            self._seen.append(self.site(call.module)[0])
            return self._residual.attend(call)
        return self._record(call)

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        if self._residual is not None:
            self._residual.inputs[id(module)] = x

    # Inside -------------------------------------------------------------------------------------------

    def site(self, module: nn.Module) -> tuple[str, str, int]:
        """(name, kind, layer) of an attention module."""
        name = self._name.get(id(module), type(module).__name__)
        numbers = list(re.finditer(r"(?<=\.)\d+(?=\.|$)", "." + name))
        layer: Any = getattr(module, "layer_index", None) if hasattr(module, "attention_kind") else None
        if layer is None:
            layer = int(numbers[-1].group()) if numbers else 0
        for given, pattern in self.kinds.items():
            if fnmatchcase(name, pattern):
                return name, given, int(layer)
        kind: Any = getattr(module, "attention_kind", None)
        if kind is None:
            kind = name
            if numbers:
                start, end = (n - 1 for n in numbers[-1].span())
                kind = f"{name[:start]}*{name[end:]}"
        return name, str(kind), int(layer)

    def planned(self) -> list[str]:
        """Kinds that modules calling the seam themselves will have, as far as `layers` wants them."""
        own = [m for m in self._modules.values() if hasattr(m, "attention_kind") and self._wanted(m)]
        return list(dict.fromkeys(self.site(module)[1] for module in own))

    def _wanted(self, module: nn.Module) -> bool:
        name, kind, layer = self.site(module)
        return any(fnmatchcase(name, p) or fnmatchcase(f"{kind}.{layer}", p) for p in self.layers)

    def _record(self, call: AttentionCall) -> Tensor:
        name, kind, layer = self.site(call.module)
        self._seen.append(name)
        if not self._wanted(call.module):
            return call.context()
        number = self._calls[name] = self._calls.get(name, 0) + 1
        # One module may attend several times in a pass (LXMERT both ways, Qwen-VL once per image).
        kind = kind if number == 1 else f"{kind}#{number}"
        factored = call.factored()
        want, group_names = self._want(factored, kind)
        weight = None
        if not want.names.isdisjoint(NEEDS_PROJECTION):
            weight = self._projection(name, factored)
        values, context, reason = compute(call, factored, want, weight, self.backend)
        if (kind, reason) not in self._told:
            self._told.add((kind, reason))
            log.info("capture: %s: %s", kind, reason)
        keep = {n: v.detach().cpu() if n == "attn" else v.detach() for n, v in values.items()}
        self._records.append(Record(kind, layer, name, keep, group_names))
        return context

    def _want(self, call: AttentionCall, kind: str) -> tuple[Want, list[str]]:
        batch, _, queries, _ = call.q.shape
        keys, device, names = call.k.shape[2], call.q.device, self.names
        member, group_names = None, []
        groups = for_kind(self.groups, kind)
        if groups is None:
            names -= NEEDS_GROUPS
        elif not names.isdisjoint(NEEDS_GROUPS):
            member, group_names = groups.member_BKG.to(device), groups.names
            if member.shape[1] != keys or len(member) not in (1, batch):
                raise AtlasError(
                    f"capture: groups: for {len(member)} × {member.shape[1]} keys, but {kind} has {batch} × "
                    f"{keys}; give groups={{kind glob: groups}} or choose layers="
                )
            member = member.expand(batch, -1, -1)
        chosen: dict[str, Tensor | None] = {}
        for what, value, sizes, needed in (
            ("rows", for_kind(self.rows, kind), (queries,), NEEDS_ROWS),
            ("columns", for_kind(self.columns, kind), (keys,), {"columns"}),
            ("pairs", for_kind(self.pairs, kind), (queries, keys), {"pairs"}),
        ):
            chosen[what] = None
            if value is None:
                names -= set(needed)
            elif not names.isdisjoint(needed):
                chosen[what] = indices(value, batch, sizes, f"{what}: {kind}", device)
        count = for_kind(self.queries, kind)
        if count is not None and "received" in names:
            count = torch.as_tensor(count, device=device).bool()
            if count.shape != (batch, queries):
                raise AtlasError(
                    f"capture: queries: shape {tuple(count.shape)}, but {kind} has {batch} × {queries}"
                )
        want = Want(names, chosen["rows"], chosen["columns"], chosen["pairs"], member, count)
        return want, group_names

    def _projection(self, name: str, call: AttentionCall) -> Tensor:
        if name not in self._weights:
            path = for_kind(self.projections, name) if self.projections else None
            heads, size = call.v.shape[1], call.v.shape[-1]
            self._weights[name] = output_weight_HDM(self._modules, name, heads, size, path)
        return self._weights[name].detach().to(call.q.dtype)
