"""Scores of all heads, picked heads on other images, and the files of both.

Axes: E examples, I images, C heads (layer · heads + head), M measures, B baselines, F folds, K picked.
"""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.phrase_boxes import Example
from attention_atlas.files import results_in, write_text
from attention_atlas.ground.heads import compared, difference, estimate, named, of_heads
from attention_atlas.ground.scores import CHANCES, MEASURES
from attention_atlas.look.result import checked_folder
from attention_atlas.measures.places import Places

SCHEMA = "atlas.ground/2"
FILES = ("heads.csv", "summary.json", "index.html")
COLUMNS = (
    *("layer", "head", "measure", "value", "ci_low", "ci_high", "n", "images", "rank"),
    *(f"chance_{name}" for name in CHANCES),
    *("control", "above_control", "above_control_ci_low", "above_control_ci_high", "share"),
)


@dataclass
class Shown:
    """An example as drawn on the page: maps_KT of the best heads by IoU, then their mean."""

    example: Example
    places: Places
    maps_KT: np.ndarray


@dataclass
class Grounded:
    """values_EMC: score of each example, measure and head. control_EMC: the same maps against boxes of other
    images. chance_EMB: maps that do not look at the image. share_EC: share of a head's attention on the
    image. image_E: number of each example's image. layers, heads: the numbers of the layers, and heads
    per layer. fold_I: of each image. held_FMK: heads picked on the other folds; whole_MK: on all images.
    mean_2EM {held_out, in_sample}: scores and controls of the mean of the picked heads' maps."""

    model: str
    prompt: str
    query: str
    seed: int
    examples: list[Example]
    layers: list[int]
    heads: int
    image_E: np.ndarray
    values_EMC: np.ndarray
    control_EMC: np.ndarray
    chance_EMB: np.ndarray
    share_EC: np.ndarray
    fold_I: np.ndarray
    held_FMK: np.ndarray
    whole_MK: np.ndarray
    mean_2EM: dict[str, np.ndarray]
    shown: list[Shown]
    notes: list[str] = field(default_factory=list)

    @cached_property
    def estimates(self) -> dict[str, np.ndarray]:
        """value, ci_low, ci_high, control, and above_control with its interval, (M,C) each."""
        own = estimate(self.values_EMC, self.image_E, self.seed)
        above = difference(self.values_EMC, self.control_EMC, self.image_E, self.seed)
        out = own | {"control": own["value"] - above["value"], "above_control": above["value"]}
        return out | {f"above_control_{end}": above[end] for end in ("ci_low", "ci_high")}

    @property
    def chance(self) -> dict[str, dict[str, float]]:
        """{measure: {baseline: its mean}}."""
        mean_MB = self.chance_EMB.mean(0)
        return {m: dict(zip(CHANCES, map(float, row))) for m, row in zip(MEASURES, mean_MB)}

    def rows(self) -> list[dict[str, Any]]:
        """The rows of heads.csv: one per measure, layer and head. Numbers of layers and heads start at 0."""
        out, share_C = [], self.share_EC.mean(0)
        for m, measure in enumerate(MEASURES):
            value_C = self.estimates["value"][m]
            rank_C = np.argsort(np.argsort(-value_C, kind="stable"), kind="stable") + 1
            for c, (layer, head) in enumerate(named(range(len(value_C)), self.layers, self.heads)):
                row = {"layer": layer, "head": head, "measure": measure, "rank": int(rank_C[c])}
                row |= {"n": len(self.examples), "images": len(self.fold_I), "share": float(share_C[c])}
                row |= {name: float(value_MC[m, c]) for name, value_MC in self.estimates.items()}
                row |= {f"chance_{name}": value for name, value in self.chance[measure].items()}
                out.append({name: row[name] for name in COLUMNS})
        return out

    @cached_property
    def picks(self) -> dict[str, dict[str, Any]]:
        """{measure: {best_head, mean_of_best: {held_out, in_sample: value, interval, differences to the
        baselines, heads}}}. The heads are [layer, head]; those of held_out are listed by fold."""
        fold_E = self.fold_I[self.image_E]
        whole_FMK = np.repeat(self.whole_MK[None], len(self.held_FMK), 0)
        out: dict[str, dict[str, Any]] = {}
        for m, measure in enumerate(MEASURES):
            out[measure] = {"best_head": {}, "mean_of_best": {}}
            for name, heads_FMK in (("held_out", self.held_FMK), ("in_sample", whole_FMK)):
                first = [of_heads(x, heads_FMK, fold_E)[:, m] for x in (self.values_EMC, self.control_EMC)]
                for kind, (value_E, control_E), count in (
                    ("best_head", first, 1),
                    ("mean_of_best", self.mean_2EM[name][..., m], heads_FMK.shape[2]),
                ):
                    against = {f"chance_{b}": self.chance_EMB[:, m, n] for n, b in enumerate(CHANCES)}
                    against["control"] = control_E
                    heads = [named(k, self.layers, self.heads) for k in heads_FMK[:, m, :count]]
                    out[measure][kind][name] = {
                        **compared(value_E, against, self.image_E, self.seed),
                        "heads": heads if name == "held_out" else heads[0],
                    }
        return out

    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "prompt": self.prompt,
            "query": self.query,
            "seed": self.seed,
            "folds": int(self.fold_I.max()) + 1,
            "best": int(self.whole_MK.shape[1]),
            "layers": self.layers,
            "heads": self.heads,
            "n": len(self.examples),
            "images": len(self.fold_I),
            "notes": self.notes,
            "chance": self.chance,
            "picked": self.picks,
        }

    def save(self, folder: str | Path) -> Path:
        """Write heads.csv, summary.json and index.html: all of them, or none."""
        from attention_atlas.ground.page import page

        folder = checked_folder(folder)
        with results_in(folder) as part:
            with (part / FILES[0]).open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows({k: _short(v) for k, v in row.items()} for row in self.rows())
            summary = json.dumps(_plain(self.summary()), ensure_ascii=False, indent=1)
            write_text(part / FILES[1], summary + "\n")
            write_text(part / FILES[2], page(self))
        return folder


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value


def _plain(value: Any) -> Any:
    """For JSON: six digits, None for NaN."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if np.isnan(value) else round(value, 6)
    return value
