"""`Capture`: run a model and keep statistics of its attention.

    capture = Capture(model, ["mass", "entropy"], groups=role_groups(roles))
    captured = capture(**inputs)                    # or: with capture: model(**inputs); capture.result()
    captured["model.layers.*.self_attn"].mass       # (B,L,H,Q,G)

The model's own output is unchanged. A capture records one forward pass (the next call of the model replaces
it); for generated text do one teacher-forced pass over it rather than capture every step.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.capture.agreement import disagreement
from attention_atlas.capture.backends import BACKENDS, compute, form_of, output, plan, returned
from attention_atlas.capture.groups import Groups
from attention_atlas.capture.inventory import Inventory
from attention_atlas.capture.projection import UnchangedContexts, output_layer, output_weight_HDM
from attention_atlas.capture.residual import ResidualInputs
from attention_atlas.capture.result import Captured, Record
from attention_atlas.capture.routes import captured_by
from attention_atlas.capture.seam import AttentionCall, current, in_backward, lock_of
from attention_atlas.capture.sites import Sites
from attention_atlas.capture.want import (
    NEEDS_GROUPS,
    NEEDS_PROJECTION,
    NEEDS_ROWS,
    Request,
    check_names,
    for_kind,
    without,
)
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

log = logging.getLogger(__name__)
CONVENTIONS = ("used", "unnormalised")


class Capture:
    """statistics: names listed in want.py. groups, rows, columns, pairs, queries: one value for all kinds, or
    {kind glob: value}; rows and columns are positions (n,) or (B,n), pairs (n,2) or (B,n,2), negative from
    the end; queries is bool (B,Q), the queries that count in `received` (exclude padding).

    backend: auto | fused | one_pass | materialised (docs/capture.md). layers: one or more globs over module
    names and "kind.layer"; a leading "!" excludes. "decoder", "vision", "cross" ("decoder.3": its
    layer 3) are the parts of any model (sites.py), valid wherever globs are.
    kinds: {your name: glob over module names}; default: a module's `attention_kind`, or its name with the
    layer number replaced by *. convention: used, or unnormalised (see seam.py). projections: {module glob:
    path of its output projection}, where it is not found automatically.

    check: compare α·V with the module's own result, in its first call and whenever masks, types or back end
    differ from those checked; and, in the first forward pass, look for attention that does not pass through
    the capture: a warning and `Captured.outside` name it. A checked call costs one more attention pass.

    Raises AtlasError when nothing matches, and when a selected module's attention cannot be reproduced.
    A capture cannot be entered twice at the same time; captures of one model in several threads wait for each
    other.
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
        check: bool = True,
    ) -> None:
        self.model, self.names = model, check_names(statistics)
        self.groups, self.rows, self.columns, self.pairs = groups, rows, columns, pairs
        self.queries, self.backend, self.convention = queries, backend, convention
        self.layers = [layers] if isinstance(layers, str) else list(layers)
        self.kinds, self.projections = dict(kinds or {}), dict(projections or {})
        for field, value, known in (("backend", backend, BACKENDS), ("convention", convention, CONVENTIONS)):
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
        self.sites = Sites(model, self.layers, self.kinds)
        self.check, self._checked = check, set[tuple[Any, ...]]()
        self._inventory: Inventory | None = None
        self._unchanged = UnchangedContexts()
        self._logged: set[tuple[str, str]] = set()
        self._ever: set[str] = set()
        self._warned = False
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
        """Run `function`, which calls the model, and return what was captured."""
        with lock_of(self.model):
            with self, torch.no_grad():
                output = function()
            return self.result(output)

    def __enter__(self) -> Capture:
        with contextlib.ExitStack() as stack:
            stack.enter_context(lock_of(self.model))
            if self._exit is not None:
                raise AtlasError(
                    "capture: this capture is already active; exit it first, or create a second one"
                )
            self._reset()
            stack.enter_context(captured_by(self, self.model))
            if self.convention == "unnormalised":
                self._residual = ResidualInputs(self._record, lambda: current() is self)
                stack.enter_context(self._residual.hooks(self.sites.modules, self.sites.wanted))
            handle = self.model.register_forward_pre_hook(lambda *_: self._begin())
            stack.callback(handle.remove)
            if self.check and self._inventory is None:
                self._inventory = stack.enter_context(Inventory(self.sites.modules))
            self._exit = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self._exit is not None
        leave, self._exit = self._exit, None
        self._unchanged.done()
        if self._residual is not None:
            self._residual.clear()
        if self._inventory is not None:
            self._inventory.done = True
            if error[0] is not None or not (self._seen or self._inventory.outside):
                self._inventory = None  # the pass was incomplete; take the next one
        leave.close()

    def _begin(self) -> None:
        """A forward pass of the model starts, in some thread."""
        if current() is not self:
            return
        if self._seen and self._inventory is not None:
            self._inventory.done = True
        self._reset()

    def result(self, output: Any = None) -> Captured:
        """The result of the last forward pass. Raises AtlasError if no attention was seen or none matched."""
        if not self._seen:
            inline = f" ({', '.join(self.outside)} bypass it)" if self.outside else ""
            raise AtlasError(
                f"capture: {type(self.model).__name__}: no attention passed through the capture{inline}; run "
                "the model inside it, in the same thread, and see docs/capture.md for the known classes"
            )
        if not self._records:
            pattern = ", ".join(self.layers)
            raise AtlasError(
                f"capture: layers: '{pattern}' matches nothing{did_you_mean(pattern, self._seen)}"
            )
        if self.outside and not self._warned:
            self._warned = True
            warnings.warn(
                f"capture: attention that is not captured: {', '.join(self.outside)}; leave it out with "
                f"layers={without(self.outside)}, or see docs/capture.md on adding a class",
                stacklevel=2,
            )
        return Captured.build(self._records, output, self.outside)

    @property
    def outside(self) -> list[str]:
        """Names of selected modules whose attention did not pass through the capture in the first pass (see
        inventory.py). Empty with check=False."""
        found = [] if self._inventory is None else self._inventory.outside
        return [n for n in found if n not in self._ever and self.sites.wanted_name(n)]

    # Called by the seam -------------------------------------------------------------------------------

    def wants(self, module: nn.Module) -> bool:
        if id(module) not in self.sites.names or in_backward():
            # A call of another model, or the recomputation of gradient checkpointing.
            return False
        name = self.sites.site(module)[0]
        self._seen.append(name)
        self._ever.add(name)
        return self.sites.wanted(module)

    def attend(self, call: AttentionCall) -> Tensor:
        if self._residual is not None:
            return self._residual.attend(call)
        return self._record(call)

    def residual_input(self, module: nn.Module, x: Tensor) -> None:
        if self._residual is not None:
            self._residual.inputs[id(module)] = x

    # Inside -------------------------------------------------------------------------------------------

    def _record(self, call: AttentionCall) -> Tensor:
        name, kind, layer = self.sites.site(call.module)
        number = self._calls[name] = self._calls.get(name, 0) + 1
        # One module may attend several times in a pass (LXMERT both ways, Qwen-VL once per image).
        kind = kind if number == 1 else f"{kind}#{number}"
        request = Request(self.names, self.groups, self.rows, self.columns, self.pairs, self.queries)
        want, group_names = request.of(call, kind, self.sites.aliases_of_kind(call.module))
        weight = None
        if not want.names.isdisjoint(NEEDS_PROJECTION):
            weight = self._projection(call)
        planned, how, reason = plan(call, want, self.backend)
        form = (name, how, *form_of(call))
        unchecked = self.check and not call.dropout and form not in self._checked
        needed = unchecked or returned(call, how, self.backend)
        values, made = compute(planned, want, weight, how, needed)
        if unchecked:
            assert made is not None
            wrong = disagreement(call, made)
            if wrong:
                raise AtlasError(
                    f"capture: {name}: check 'weights times values': they {wrong}; exclude it with "
                    "layers=['*', '!name'] or correct how it is captured"
                )
            self._checked.add(form)
        if (kind, reason) not in self._logged:
            self._logged.add((kind, reason))
            log.info("capture: %s: %s", kind, reason)
        keep = {n: v.detach().cpu() if n == "attn" else v.detach() for n, v in values.items()}
        self._records.append(Record(kind, layer, name, keep, group_names))
        context = output(call, made, how, self.backend)
        if weight is not None and self.check and self.convention == "used" and not call.dropout:
            self._unchanged.expect(name, output_layer(*self._projecting(call))[1], context)
        return context

    def _projection(self, call: AttentionCall) -> Tensor:
        return output_weight_HDM(*self._projecting(call)).to(call.q.device)

    def _projecting(self, call: AttentionCall) -> tuple[Mapping[str, nn.Module], str, int, int, str | None]:
        """The arguments of output_weight_HDM."""
        name = self.sites.names[id(call.module)]
        aliases = self.sites.aliases_of_kind(call.module)
        path = for_kind(self.projections, name, aliases) if self.projections else None
        return self.sites.modules, name, call.q.shape[1], call.v.shape[-1], path
