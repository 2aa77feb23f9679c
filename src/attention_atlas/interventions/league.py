"""The league: which relevance of image tokens is most faithful to what the model does?

For each example and order of the image tokens, the areas under the deletion and the insertion curve of the
answer's log-probability (curves.py). Orders: those of the methods (relevance.py), tokens nearest the centre
first, and random ones. Axes: E example, T image token, K step, D random order.

- area: in nats; low is good for deletion, high for insertion.
- normalised: (Σ area − Σ hidden) / (Σ shown − Σ hidden), sums over examples: 1 is the plain image, 0 the
  fully hidden image. Undefined (None) where the image makes no difference.
- gain: the area's distance from the mean of the example's random orders, in nats, positive where the method
  is better than random (lower for deletion, higher for insertion).

Intervals resample examples (measures.bootstrap); one example alone has none. It has the interval of its
random orders instead. The deletion curve of a random order, read backwards, is the insertion curve of the
reversed order, which is as random; so random needs half the passes, and its two areas are equal.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.files import write_json, write_text
from attention_atlas.interventions.answers import Answered, answered
from attention_atlas.interventions.curves import BASELINES, Hidden, area, curve_of, steps_of
from attention_atlas.interventions.relevance import METHODS, centre_first, image_tokens, order_of, relevance
from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, resampling_matrix

SCHEMA = "atlas.faithfulness/1"
FILES = ("faithfulness.json", "faithfulness.csv")
CENTRE, RANDOM = "centre_first", "random"
CURVES = ("deletion", "insertion")
EQUAL = 1e-4  # nats: below this difference between shown and hidden, areas are not normalised
COLUMNS = (
    *("method", "curve", "n", "area", "area_low", "area_high", "normalised", "normalised_low"),
    *("normalised_high", "gain", "gain_low", "gain_high"),
)


@dataclass
class Example:
    """One image, prompt and answer. count_K: tokens hidden or shown at each step. curves: {method: {curve:
    (K,) log p}}; random_DK: deletion curves of random orders. relevance: {method: (T,)}; boxes_T4: pixels."""

    prompt: str
    answer: str
    shown: float
    hidden: float
    count_K: np.ndarray
    curves: dict[str, dict[str, np.ndarray]]
    random_DK: np.ndarray
    relevance: dict[str, np.ndarray]
    boxes_T4: np.ndarray
    notes: list[str] = field(default_factory=list)

    def area(self, method: str, curve: str) -> float:
        """Of a method or, as the mean over orders, of random. NaN for a method that was left out."""
        if method == RANDOM:
            return float(np.mean(self.random_areas))
        if method not in self.curves:
            return float("nan")
        return area(self.curves[method][curve], self.count_K)

    @property
    def random_areas(self) -> np.ndarray:
        """(D,), the same for deletion and insertion."""
        return np.array([area(curve_K, self.count_K) for curve_K in self.random_DK])


@dataclass
class League:
    """The examples, and the table over them."""

    model: str
    baseline: str
    examples: list[Example]
    seed: int = 0
    left_out: list[str] = field(default_factory=list)  # one line for each example

    @property
    def methods(self) -> list[str]:
        names = dict.fromkeys(name for example in self.examples for name in example.curves)
        return [*names, RANDOM]

    def rows(self) -> list[dict[str, Any]]:
        """One row for each method and curve, with the columns COLUMNS; None where a value is undefined."""
        counts = resampling_matrix(len(self.examples), seed=self.seed)
        shown_E = np.array([e.shown for e in self.examples])
        hidden_E = np.array([e.hidden for e in self.examples])
        out = []
        for method in self.methods:
            for curve in CURVES:
                area_E = np.array([e.area(method, curve) for e in self.examples])
                random_E = np.array([e.area(RANDOM, curve) for e in self.examples])
                there_E = np.isfinite(area_E)
                kept = np.where(there_E, area_E, 0.0)
                sign = 1 if curve == "insertion" else -1
                ones = there_E.astype(float)
                parts = {
                    "area": (kept, ones),
                    "normalised": ((kept - hidden_E) * ones, (shown_E - hidden_E) * ones),
                    "gain": (sign * (kept - random_E) * ones, ones),
                }
                row: dict[str, Any] = {"method": method, "curve": curve, "n": int(there_E.sum())}
                for name, (num_E, den_E) in parts.items():
                    value = float(ratio(num_E[:, None], den_E[:, None])[0])
                    resampled = resampled_ratio(num_E[:, None], den_E[:, None], counts)
                    low, high = (float(x[0]) for x in interval(resampled))
                    if name == "normalised" and abs(den_E.sum()) < EQUAL * max(1, there_E.sum()):
                        value = low = high = float("nan")
                    row |= {name: value, f"{name}_low": low, f"{name}_high": high}
                out.append({n: _plain(row[n]) for n in COLUMNS})
        return out

    def save(self, folder: str | Path) -> Path:
        """Write faithfulness.json (rows, and the curves of each example) and faithfulness.csv (rows)."""
        folder, rows = Path(folder), self.rows()
        about = {"schema": SCHEMA, "model": self.model, "baseline": self.baseline, "unit": "nats"}
        examples = [
            {
                "prompt": e.prompt,
                "answer": e.answer,
                "shown": _plain(e.shown),
                "hidden": _plain(e.hidden),
                "tokens": e.count_K.tolist(),
                "curves": {m: {c: _plain(v) for c, v in by.items()} for m, by in e.curves.items()},
                "random": _plain(e.random_DK),
                "random_area": _plain(np.percentile(e.random_areas, [2.5, 97.5])),
                "relevance": {m: _plain(v) for m, v in e.relevance.items()},
                "boxes": _plain(e.boxes_T4),
                "notes": e.notes,
            }
            for e in self.examples
        ]
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_json(folder / FILES[0], about | {"rows": rows, "left_out": self.left_out, "examples": examples})
        write_text(folder / FILES[1], text.getvalue())
        return folder


def faithfulness(
    model: Any,
    processor: Any,
    examples: Sequence[tuple[Any, str, str | None]],
    *,
    methods: Sequence[str] = METHODS,
    baseline: str = "mean",
    steps: int = 10,
    draws: int = 10,
    max_new_tokens: int = 40,
    seed: int = 0,
    names: Sequence[str] = (),
) -> League:
    """examples: (image or images, prompt, answer or None for the model's own). baseline: what hides a
    token (curves.Hidden). steps: points of a curve after the first. draws: random orders for each example.
    names: of the examples in messages. Among several examples, one that cannot be measured is left out.

    One pass of the capture and one with gradients for each example, then at most (2 · methods + 2 + draws) ·
    steps passes.

    Raises ConfigError for a wrong argument, AtlasError for a model that cannot be measured.
    """
    check(methods, baseline, steps, draws)
    if not examples:
        raise ConfigError("faithfulness: no example; give at least one")
    model.eval()
    found, left_out = [], []
    for n, (image, prompt, answer) in enumerate(examples):
        try:
            case = answered(model, processor, image, prompt, answer, max_new_tokens)
            rng = np.random.default_rng([seed, n])
            found.append(_example(model, processor, case, methods, baseline, steps, draws, rng))
        except AtlasError as error:
            if len(examples) == 1:
                raise
            left_out.append(f"{names[n] if names else f'example {n + 1}'}: left out: {error}")
    if not found:
        raise AtlasError(f"faithfulness: no example is left; {left_out[0]}")
    name = model.config.name_or_path or type(model).__name__
    return League(name, baseline, found, seed, left_out)


def _example(
    model: Any,
    processor: Any,
    case: Answered,
    methods: Sequence[str],
    baseline: str,
    steps: int,
    draws: int,
    rng: np.random.Generator,
) -> Example:
    hidden = Hidden(model, processor, case, image_tokens(model, case), baseline)
    usable = np.flatnonzero(hidden.usable_T)
    size, count_K = len(hidden.image_T), steps_of(len(usable), steps)
    values, notes = relevance(model, case, methods)
    # Only tokens that can be hidden are ordered.
    orders = {name: usable[order_of(value_T[usable])] for name, value_T in values.items()}
    if np.isfinite(hidden.boxes_T4[usable]).all():
        sizes = [case.images[int(i)].size for i in hidden.owner_T[usable]]
        orders[CENTRE] = usable[centre_first(hidden.boxes_T4[usable], sizes.__getitem__)]
    else:
        notes.append("no centre-first order: the image tokens have no place")
    by_method = {
        name: {c: curve_of(hidden, order, size, count_K, c == "insertion") for c in CURVES}
        for name, order in orders.items()
    }
    if not by_method:
        raise AtlasError(f"faithfulness: no method is left ({'; '.join(notes)})")
    random_DK = np.stack(
        [curve_of(hidden, rng.permutation(usable), size, count_K, insertion=False) for _ in range(draws)]
    )
    some = next(iter(by_method.values()))["deletion"]
    return Example(
        prompt=case.prompt,
        answer=case.whole.answer,
        shown=float(some[0]),
        hidden=float(some[-1]),
        count_K=count_K,
        curves=by_method,
        random_DK=random_DK,
        relevance=values,
        boxes_T4=hidden.boxes_T4,
        notes=notes,
    )


def check(methods: Sequence[str], baseline: str, steps: int, draws: int) -> None:
    """Raises ConfigError for a value that `faithfulness` cannot use."""
    for what, given, known in (("--methods", methods, METHODS), ("--baseline", [baseline], BASELINES)):
        for name in given:
            if name not in known:
                raise ConfigError(f"{what}: '{name}' is unknown{did_you_mean(name, known)}")
    for what, number, least in (("--steps", steps, 1), ("--draws", draws, 2), ("--methods", len(methods), 1)):
        if number < least:
            raise ConfigError(f"{what}: {number} is less than {least}; give more")


def _plain(value: Any) -> Any:
    """For JSON: rounded, None for NaN."""
    if isinstance(value, np.ndarray):
        return [_plain(x) for x in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) if np.isfinite(value) else None
    return value
