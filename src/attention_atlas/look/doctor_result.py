"""The doctor's findings: frozen dataclasses, a readable table, and doctor.json."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attention_atlas.files import write_text

SCHEMA = "atlas.doctor/2"
FILE = "doctor.json"
FAULTS = ("formula", "weights", "mask")
CAUSES = {
    "formula": "its result is not softmax(scale · q·k + mask) · v of its own queries, keys and values",
    "weights": "it returns other weights than it uses",
    "mask": "its mask shows other keys",
    "shape": "the reference has no map of that shape",
    "earlier": "its queries and keys differ already",
}
HINT = """\
Reading: maps of one implementation do not explain the answers of another one that differs. Such differences
are known: Qwen2-VL-7B scored 81.56 on ChartQA with flash attention and 72.64 with eager (transformers 4.47.1,
issue #35749)."""
HALF_HINT = (
    "In half precision, rounding alone makes a difference. With --dtype float32, what remains is no rounding."
)


@dataclass(frozen=True)
class MapDifference:
    """One attention module (one of its calls): its maps in an implementation against those of the reference.

    largest: of |a − b| over heads, queries and keys. variation: total variation ½ Σ_k |a_k − b_k|, the mean
    over heads and queries; 0 for equal maps, 1 for maps without a common key. Both NaN where the reference
    has no map of that shape.
    cause: '', or a key of CAUSES; "earlier" if only the module's inputs differ.
    """

    module: str
    kind: str
    layer: int
    part: str
    largest: float
    variation: float
    cause: str


@dataclass(frozen=True)
class Implementation:
    """One way to compute the same pass: "sdpa", "flash_attention_2", "eager", "capture: fused", ...

    verdict: reference | agrees | rounding | differs | absent; words: the same as a sentence.
    logits: largest difference relative to the reference's largest logit. flipped: number of the `positions`
    compared whose most likely token differs. answer: greedily generated, None for a given one.
    differs_at: first token (from 0) that differs from the reference's answer, None if none does. lead: by
    how many nats the reference prefers its own token there, None where one of the answers has ended.
    maps: see MapDifference; empty where maps cannot be compared. starts: the module at fault, or else the
    first whose maps differ.
    """

    name: str
    verdict: str
    words: str
    logits: float | None = None
    flipped: int | None = None
    positions: int | None = None
    answer: str | None = None
    differs_at: int | None = None
    lead: float | None = None
    maps: tuple[MapDifference, ...] = ()
    starts: MapDifference | None = None

    @property
    def largest(self) -> float | None:
        return max((m.largest for m in self.maps if m.cause != "shape"), default=None)

    @property
    def variation(self) -> float | None:
        """The largest total variation of a module."""
        return max((m.variation for m in self.maps if m.cause != "shape"), default=None)


@dataclass(frozen=True)
class Captured:
    """Attention of one kind: its modules, their class and part of the model (decoder, vision, cross or ''),
    how they reach the capture, and which back end computed them."""

    kind: str
    part: str
    modules: int
    class_name: str
    route: str
    back_ends: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The result of `diagnose`. reference: the implementation that the others are compared with. captured:
    attention that the capture sees; outside: names of modules whose attention it does not see. rows: share of
    the queries whose maps were compared, in the module with the largest maps."""

    model: str
    dtype: str
    device: str
    images: tuple[str, ...]
    prompt: str
    answer: str
    tokens: int
    reference: str
    implementations: tuple[Implementation, ...]
    captured: tuple[Captured, ...]
    outside: tuple[str, ...]
    rows: float

    @property
    def healthy(self) -> bool:
        """Whether nothing differs by more than rounding, and the capture ran with each of its back ends."""
        broken = [i for i in self.implementations if i.verdict == "absent" and i.name.startswith("capture")]
        return not broken and all(i.verdict != "differs" for i in self.implementations)

    def __getitem__(self, name: str) -> Implementation:
        return next(i for i in self.implementations if i.name == name)

    def as_dict(self) -> dict[str, Any]:
        """doctor.json (docs/contracts.md)."""
        found = {"schema": SCHEMA, "healthy": self.healthy, **dataclasses.asdict(self)}
        return _finite(found)

    def save(self, folder: str | Path) -> Path:
        """Write doctor.json into `folder`."""
        path = Path(folder) / FILE
        write_text(path, json.dumps(self.as_dict(), ensure_ascii=False, indent=1) + "\n")
        return path

    def text(self) -> str:
        """The report."""
        lines = [
            f"model        {self.model}, {self.dtype} on {self.device}",
            f"input        {', '.join(self.images)}; {self.tokens} tokens; prompt: {self.prompt}",
            f"answer       {self.answer}",
            "",
            *_table(
                ["implementation", "verdict", "logits", "first choice", "answer", "map, largest", "map, TV"],
                [self._row(i) for i in self.implementations],
            ),
            "",
            *_table(
                ["captured", "part", "modules", "class", "route", "back end"],
                [
                    [c.kind, c.part or "-", str(c.modules), c.class_name, c.route, _short(c.back_ends)]
                    for c in self.captured
                ],
            ),
            f"not seen     {', '.join(self.outside) or 'none'}",
            "",
            *(f"{i.name}: {i.words}" for i in self.implementations),
            "",
            HINT,
        ]
        if self.dtype != "float32":
            lines.append(HALF_HINT)
        if self.rows < 1:
            lines.append(f"Maps were compared for {self.rows:.0%} of the queries of the largest module.")
        return "\n".join(lines)

    def _row(self, i: Implementation) -> list[str]:
        if i.logits is None:
            return [i.name, i.verdict, *["-"] * 5]
        answer = "-" if i.answer is None else "same"
        if i.differs_at is not None:
            answer = f"from token {i.differs_at}"
        numbers = ["-" if x is None else f"{x:.1e}" for x in (i.largest, i.variation)]
        return [i.name, i.verdict, f"{i.logits:.1e}", f"{i.flipped} of {i.positions}", answer, *numbers]


def _short(reasons: tuple[str, ...]) -> str:
    return ", ".join(dict.fromkeys(reason.partition(":")[0].partition(",")[0] for reason in reasons))


def _finite(value: Any) -> Any:
    """Nested lists and dictionaries; None for a float that JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[n]) for row in [head, *rows]) for n in range(len(head))]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)).rstrip() for row in [head, *rows]]
