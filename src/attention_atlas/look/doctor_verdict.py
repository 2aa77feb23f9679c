"""The verdict on an implementation, as a word and as a sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from attention_atlas.capture.agreement import HALF, TOLERANCE
from attention_atlas.look.atlas import TOLERANCE as NATS
from attention_atlas.look.doctor_maps import CallMaps, differences
from attention_atlas.look.doctor_result import CAUSES, FAULTS, Implementation, MapDifference
from attention_atlas.look.inputs import Sequenced


@dataclass
class Run:
    """An implementation's output: its own answer; logits (N,V) and maps of a pass over the common text."""

    name: str
    text: Sequenced | None = None
    logits_NV: Tensor | None = None
    calls: list[CallMaps] = field(default_factory=list)
    reason: str = ""  # why it did not run

    @property
    def faulty(self) -> bool:
        return any(call.fault for call in self.calls)


def judged(run: Run, reference: Run, dtype: torch.dtype) -> Implementation:
    """An implementation against the reference (which may be itself)."""
    if run.reason:
        return Implementation(run.name, "absent", f"did not run: {run.reason}")
    assert run.logits_NV is not None and reference.logits_NV is not None
    a, b = run.logits_NV, reference.logits_NV
    off = float((a - b).abs().max() / b.abs().max())
    at, lead = _parting(reference.text, run.text)
    maps = tuple(differences(reference.calls, run.calls, dtype))
    starts = _first(maps, lambda m: m.cause in FAULTS) or _first(maps, lambda m: m.largest > TOLERANCE[dtype])
    verdict = _verdict(run is reference, off, lead, starts, bool(maps), dtype)
    return Implementation(
        name=run.name,
        verdict=verdict,
        words=_words(verdict, off, at, lead, starts, maps, reference.name, dtype),
        logits=off,
        flipped=int((a.argmax(-1) != b.argmax(-1)).sum()),
        positions=len(b),
        answer=None if run.text is None or run.text.logits_NV is None else run.text.answer,
        differs_at=at,
        lead=lead,
        maps=maps,
        starts=starts,
    )


def _verdict(
    is_reference: bool,
    off: float,
    lead: float | None,
    starts: MapDifference | None,
    checked: bool,
    dtype: torch.dtype,
) -> str:
    """checked: its modules were compared with the formula, so that rounding can be told from a fault."""
    if starts is not None and starts.cause in FAULTS:
        return "differs"
    if is_reference:
        return "reference"
    if not off < float("inf") or (lead is not None and lead > NATS[dtype]):
        return "differs"
    if off > TOLERANCE[dtype] or starts is not None:
        return "rounding" if checked and dtype in HALF else "differs"
    return "agrees"


def _words(
    verdict: str,
    off: float,
    at: int | None,
    lead: float | None,
    starts: MapDifference | None,
    maps: Sequence[MapDifference],
    reference: str,
    dtype: torch.dtype,
) -> str:
    largest = max((m.largest for m in maps if m.cause != "shape"), default=None)
    seen = "" if largest is None else f", maps by up to {largest:.1e}"
    numbers = f"its logits differ from those of {reference} by up to {off:.1e} of the largest{seen}"
    tie = ""
    if at is not None:
        close = "one of them ends" if lead is None else f"{reference} prefers its own by {lead:.2g} nats"
        tie = f"; the answers part at token {at}, where {close}"
    if verdict == "reference":
        return f"the reference; each of its {len(maps)} attention calls is softmax(scale · q·k + mask) · v"
    if verdict == "agrees":
        return f"computes the same: {numbers}{tie}"
    if verdict == "rounding":
        return f"{numbers}{tie}; no module computes another formula or mask, so this is rounding of {dtype}"
    if starts is None:
        return f"computes something else: {numbers}{tie}"
    place = f"{starts.module} (layer {starts.layer}{' of the ' + starts.part if starts.part else ''})"
    wrong = sum(m.cause in FAULTS for m in maps)
    count = f", in {wrong} of {len(maps)} attention calls" if wrong else ""
    why = CAUSES.get(starts.cause, "its maps differ")
    return f"computes something else from {place} on: {why}{count}; {numbers}{tie}. Do not interpret its maps"


def _parting(reference: Sequenced | None, other: Sequenced | None) -> tuple[int | None, float | None]:
    """(first token of the answer that differs, by how many nats the reference prefers its own there)."""
    if reference is None or other is None or reference.logits_NV is None:
        return None, None
    own, new = reference.ids[reference.start :], other.ids[other.start :]
    if own == new:
        return None, None
    at = next((n for n, (a, b) in enumerate(zip(own, new)) if a != b), min(len(own), len(new)))
    if at >= min(len(own), len(new)):
        return at, None
    logits_V = reference.logits_NV[at]
    return at, float(logits_V[own[at]] - logits_V[new[at]])


def _first(maps: Sequence[MapDifference], condition: Callable[[MapDifference], bool]) -> MapDifference | None:
    return next((m for m in maps if condition(m)), None)
