"""Attention maps of one forward pass, and how those of two passes differ.

Axes: B batch of the call, H head, R chosen query, K key.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.capture import Capture
from attention_atlas.capture.agreement import HALF, TOLERANCE, disagreement
from attention_atlas.capture.materialised import select_rows
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.look.doctor_result import MapDifference

PER_MODULE = 2**22  # bytes of map rows that are kept of one module


@dataclass
class CallMaps:
    """One attention call. rows_BHRK: softmax of its own queries and keys, by the capture. own_BHRK: what its
    eager function returned, if it returned weights. visible: bool, broadcastable to (B,H,R,K); None: all.
    queries: of which R were chosen. fault: how its context differs from that softmax times its values, '' if
    it does not."""

    module: str
    number: int
    kind: str
    layer: int
    part: str
    class_name: str
    route: str
    rows_BHRK: Tensor
    own_BHRK: Tensor | None
    visible: Tensor | None
    queries: int
    fault: str

    @property
    def maps_BHRK(self) -> Tensor:
        return self.rows_BHRK if self.own_BHRK is None else self.own_BHRK


class MapCapture(Capture):
    """A capture that keeps rows of every call, in the order of the pass, whatever their shapes.

    It keeps all queries where they take at most `PER_MODULE` bytes, and evenly spaced ones otherwise. With
    check=False a call that cannot be reproduced is not an error; its `fault` says how it differs.
    """

    def __init__(
        self, model: Any, layers: str | Sequence[str], backend: str = "auto", check: bool = True
    ) -> None:
        super().__init__(model, ["rows"], rows=[0], layers=layers, backend=backend, check=check)

    def _reset(self) -> None:
        super()._reset()
        self.calls: list[CallMaps] = []

    def _record(self, call: AttentionCall) -> Tensor:
        self.rows = chosen_rows(call)
        context = super()._record(call)
        record = self._records[-1]
        rows_BHRK = record.values.pop("rows").float().cpu()
        own = None
        if call.own_weights is not None:
            own = call.own_weights.detach()[:, :, self.rows].float().cpu().expand_as(rows_BHRK)
        mask = select_rows(call, torch.tensor([self.rows], device=call.q.device).expand(len(call.q), -1)).mask
        name, kind, layer = self.sites.site(call.module)
        self.calls.append(
            CallMaps(
                module=name,
                number=self._calls[name],
                kind=kind,
                layer=layer,
                part=self.sites.part(name),
                class_name=type(call.module).__name__,
                route=_route(call),
                rows_BHRK=rows_BHRK,
                own_BHRK=own,
                visible=None if mask is None else mask.cpu(),
                queries=call.q.shape[2],
                fault="" if self.check else _fault(call),
            )
        )
        return context

    def reasons(self, kind: str) -> list[str]:
        """Which back ends computed the calls of a kind, and why."""
        return sorted({reason for name, reason in self._logged if name.partition("#")[0] == kind})


def chosen_rows(call: AttentionCall) -> list[int]:
    """All queries, or as many, evenly spaced and with the last one, as `PER_MODULE` bytes hold."""
    batch, heads, queries, _ = call.q.shape
    fits = max(1, PER_MODULE // max(1, 4 * batch * heads * call.k.shape[2]))
    return sorted({round(x) for x in np.linspace(queries - 1, 0, min(queries, fits))})


def _route(call: AttentionCall) -> str:
    if call.plain is not None:
        return "attention interface of transformers"
    return "hooks on its projections" if call.own is not None else "the library's own seam"


def _fault(call: AttentionCall) -> str:
    with torch.no_grad(), torch.autocast(call.q.device.type, enabled=False):
        return disagreement(call, call.factored().in_float32().context())


def differences(reference: list[CallMaps], other: list[CallMaps], dtype: torch.dtype) -> list[MapDifference]:
    """Of each call of `other`, in their order, how its maps differ from those of the reference."""
    by_call = {(call.module, call.number): call for call in reference}
    found = []
    for call in other:
        same = by_call.get((call.module, call.number))
        if same is None or same.rows_BHRK.shape != call.rows_BHRK.shape:
            largest = variation = float("nan")
            cause = "formula" if call.fault else "shape"
        else:
            # A query that sees no key (padding) has no map.
            sees_BHR1 = same.rows_BHRK.sum(-1, keepdim=True) > 0
            off_BHRK = ((call.maps_BHRK - same.rows_BHRK).abs() * sees_BHR1).nan_to_num(nan=math.inf)
            largest, variation = float(off_BHRK.max()), float(off_BHRK.sum(-1).mean() / 2)
            cause = _cause(same, call, largest, dtype)
        found.append(MapDifference(call.module, call.kind, call.layer, call.part, largest, variation, cause))
    return found


def _cause(same: CallMaps, call: CallMaps, largest: float, dtype: torch.dtype) -> str:
    """Why the maps of a call differ from those of the same call of the reference; '' if they do not."""
    limit = TOLERANCE[dtype]
    if call.fault:
        return "formula"
    if largest <= limit:
        return ""
    own = call.own_BHRK
    # In half precision, eager rounds its scores: large ones change single weights by more than the limit.
    if own is not None and dtype not in HALF and not float((own - call.rows_BHRK).abs().max()) <= limit:
        return "weights"
    if not torch.equal(_visible(same), _visible(call)):
        return "mask"
    return "earlier"


def _visible(call: CallMaps) -> Tensor:
    shape = call.rows_BHRK.shape
    return (
        torch.ones(1, dtype=torch.bool).expand(shape) if call.visible is None else call.visible.expand(shape)
    )
