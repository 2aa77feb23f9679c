"""All runs of one model on one data set, as arrays over alignments A, seeds S, examples E and images I."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json
from attention_atlas.studies.alignment.result import RunResult
from attention_atlas.studies.alignment.same import read_same

ABOUT = "about.json"
# Names that evaluators give the chance level of a score.
CHANCE = ("chance {}", "{} chance", "{}, random words")
RESERVED = ("example", "metric", "value", "image")


@dataclass
class Panel:
    """runs: alignment -> its results, one per seed, in order. same: the content of same.json."""

    model: str
    data: str
    runs: dict[str, list[RunResult]]
    same: list[dict[str, Any]] = field(default_factory=list)
    title: str = ""

    @property
    def alignments(self) -> list[str]:
        return list(self.runs)

    @property
    def seeds(self) -> int:
        return min(len(found) for found in self.runs.values())

    @property
    def score_names(self) -> list[str]:
        """Scores without chance levels, in the evaluator's order."""
        names = next(iter(self.runs.values()))[0].scores
        return [name for name in names if not is_chance(name)]

    def scores(self, name: str) -> np.ndarray:
        """(A,S) of one score. Raises AtlasError for a run without it."""
        for alignment, found in self.runs.items():
            for result in found:
                if name not in result.scores:
                    raise AtlasError(
                        f"runs of {self.model} on {self.data}: {alignment}: no score '{name}', which others "
                        "have; run the trainings again"
                    )
        return np.array([[r.scores[name] for r in found[: self.seeds]] for found in self.runs.values()])

    def chance(self, name: str) -> np.ndarray:
        """(A,) chance level of a score, mean over seeds: the evaluator's score under one of the names in
        CHANCE, else NaN. It may depend on the model, e.g. if its own answers are compared with other
        questions."""
        return np.array([np.mean([_chance(r, name) for r in rs[: self.seeds]]) for rs in self.runs.values()])

    def values(self, metric: str, group: str = "", member: Any = None) -> Sums | None:
        """Per-example values of `metric`, optionally of one member of a group; None if no example has them.
        Raises AtlasError if runs have different examples."""
        if metric not in self._values:
            self._values[metric] = self._read(metric)
        ids, value_ASE = self._values[metric]
        if group:
            wanted = self.members.get(group, {}).get(member, set())
            kept = [i for i, example in enumerate(ids) if example in wanted]
            ids, value_ASE = [ids[i] for i in kept], value_ASE[:, :, kept]
        if not ids:
            return None
        image_of = self.images
        return Sums(value_ASE, np.array([image_of[i] for i in ids]), max(image_of.values()) + 1)

    def _read(self, metric: str) -> tuple[list[str], np.ndarray]:
        tables = [[_table(r, metric) for r in found[: self.seeds]] for found in self.runs.values()]
        ids = sorted(tables[0][0])
        for alignment, row in zip(self.runs, tables, strict=True):
            for table in row:
                if sorted(table) != ids:
                    raise AtlasError(
                        f"runs of {self.model} on {self.data}: {alignment}: {metric}: examples differ from "
                        f"those of the first alignment ({len(table)} and {len(ids)}); run the trainings again"
                    )
        return ids, np.array([[[t[i] for i in ids] for t in row] for row in tables])

    @cached_property
    def _values(self) -> dict[str, tuple[list[str], np.ndarray]]:
        return {}

    @cached_property
    def images(self) -> dict[str, int]:
        """Example -> row of its image in the bootstrap; the example itself if it has no image."""
        rows = next(iter(self.runs.values()))[0].examples
        names = {row["example"]: str(row.get("image", row["example"])) for row in rows}
        numbers = {name: i for i, name in enumerate(sorted(set(names.values())))}
        return {example: numbers[name] for example, name in names.items()}

    def groups(self) -> dict[str, list[Any]]:
        """Group names of the example rows, and their members by decreasing number of examples, then by name;
        integers in numerical order."""
        order = {}
        for name, members in sorted(self.members.items()):
            if all(isinstance(m, int) for m in members):
                order[name] = sorted(members)
            else:
                order[name] = sorted(members, key=lambda m: (-len(members[m]), str(m)))
        return order

    @cached_property
    def members(self) -> dict[str, dict[Any, set[str]]]:
        """Group -> member -> its examples."""
        found: dict[str, dict[Any, set[str]]] = {}
        for row in next(iter(self.runs.values()))[0].examples:
            for name, member in row.items():
                if name not in RESERVED:
                    found.setdefault(name, {}).setdefault(member, set()).add(row["example"])
        return found


@dataclass
class Sums:
    """value_ASE: a metric by alignment, seed and example; image_E: the example's image of `images`."""

    value_ASE: np.ndarray
    image_E: np.ndarray
    images: int

    def num_den(self) -> tuple[np.ndarray, np.ndarray]:
        """Sums by image (I,A) of the means over seeds, and counts (I,1): the input of the bootstrap."""
        mean_EA = self.value_ASE.mean(1).T
        num_IA = np.zeros((self.images, mean_EA.shape[1]))
        np.add.at(num_IA, self.image_E, mean_EA)
        return num_IA, np.bincount(self.image_E, minlength=self.images).astype(float)[:, None]

    @property
    def examples(self) -> int:
        return self.value_ASE.shape[2]


def is_chance(name: str) -> bool:
    ends = [form.split("{}") for form in CHANCE]
    return any(name.startswith(start) and name.endswith(end) for start, end in ends)


def _chance(result: RunResult, name: str) -> float:
    known = [result.scores[key] for key in (form.format(name) for form in CHANCE) if key in result.scores]
    return float(known[0]) if known else float("nan")


def _table(result: RunResult, metric: str) -> dict[str, float]:
    """Example -> mean of its rows of the metric (one for each group it is in, all with the same value)."""
    found: dict[str, list[float]] = {}
    for row in result.examples:
        if row["metric"] == metric:
            found.setdefault(row["example"], []).append(row["value"])
    return {example: float(np.mean(values)) for example, values in found.items()}


def read_panel(folder: Path, order: list[str]) -> Panel:
    """The runs that a stage `alignment_runs` wrote, alignments in the given order, seeds in theirs.

    Raises AtlasError if the folder or a run is missing.
    """
    if not folder.is_dir():
        raise AtlasError(f"{folder}: no such folder; run its stage (dvc repro)")
    about = read_json(folder / ABOUT)
    there = [path.name for path in folder.iterdir() if path.is_dir()]
    names = [name for name in order if name in there] + sorted(set(there) - set(order))
    runs = {
        name: [
            RunResult.load(path)
            for path in sorted((folder / name).glob("seed*"), key=lambda p: int(p.name.removeprefix("seed")))
        ]
        for name in names
    }
    if not runs or not all(runs.values()):
        raise AtlasError(f"{folder}: holds no runs; run its stage (dvc repro)")
    return Panel(about["model"], about["data"], runs, read_same(folder), about["title"])
