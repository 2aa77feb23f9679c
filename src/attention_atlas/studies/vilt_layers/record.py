"""The input of the measures of study 4: attention, answers and silenced heads of one model.

Axes: N questions, L layers, H heads, Q queries, G groups of keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.data.patches import asked_objects, patches_of
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.bootstrap import RESAMPLES
from attention_atlas.measures.distribution import check_shares
from attention_atlas.measures.means import Sample
from attention_atlas.measures.vqa_accuracy import vqa_accuracy
from attention_atlas.progress import progress
from attention_atlas.recording import StatisticsStore
from attention_atlas.studies.vilt_layers.answer_rows import Who
from attention_atlas.studies.vilt_layers.answers import group
from attention_atlas.studies.vilt_layers.measures import Question, measure, stack
from attention_atlas.studies.vilt_layers.shown import patch_grid

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example, Scene

KIND, AXIS = "joint", "sequence"
RIGHT = 0.5


@dataclass
class Record:
    """statistics: path of statistics.h5. answers: {who: {question id: answer}}, with those of `model`. heads:
    the arrays of heads.npz. least: minimum number of questions in a reported group. optional: measures of
    attention that need annotated scenes. seed, resamples: for resampling."""

    model: str
    corpus: Corpus
    split: str
    statistics: Path
    answers: Mapping[Who, Mapping[str, str]]
    heads: Mapping[str, np.ndarray]
    least: int = 10
    optional: Sequence[str] = ("asked",)
    seed: int = 0
    resamples: int = RESAMPLES

    @cached_property
    def examples(self) -> dict[str, Example]:
        return {e.id: e for e in self.corpus.examples}

    @cached_property
    def captured(self) -> list[Example]:
        """The questions with statistics, in the order of the file. Raises AtlasError for a question that the
        corpus or the answers lack."""
        with StatisticsStore(self.statistics) as store:
            ids = list(store.ids)
        for what, known in (("answers", self.given), ("questions", self.examples)):
            absent = [i for i in ids if i not in known]
            if absent:
                raise AtlasError(f"{self.statistics}: '{absent[0]}' has no {what}; run the stages again")
        return [self.examples[i] for i in ids]

    @property
    def given(self) -> Mapping[str, str]:
        """The model's own answers."""
        return self.answers[Who(self.model)]

    def questions(self) -> Iterator[Question]:
        """The attention statistics of each captured question, one in memory at a time."""
        with StatisticsStore(self.statistics) as store:
            for example in progress(self.captured, "measure"):
                yield read_question(store, example, self.corpus.scene(example))

    @cached_property
    def values(self) -> Mapping[tuple[str, str], tuple[np.ndarray, np.ndarray]]:
        """{(measure, condition): values (N,L,H) and chances (N,)} of measures.py over the captured
        questions."""
        return stack([measure(question) for question in self.questions()])

    def present(self, wanted: Sequence[Sequence[str]], option: str) -> list[tuple[str, str]]:
        """The [measure, condition] pairs, without optional measures that have no values. Raises ConfigError
        for others without values, naming the option that lists them."""
        measured = {m for m, _ in self.values}
        found = [(m, c) for m, c in wanted if m in measured or m not in self.optional]
        for name, condition in found:
            if (name, condition) not in self.values:
                raise ConfigError(
                    f"conf/metrics: {option}: no measure [{name}, {condition}]; known: "
                    + "; ".join(f"{m}, {c}" for m, c in self.values)
                )
        return found

    def sample(self, examples: Sequence[Example]) -> Sample:
        return Sample.of([e.image_id for e in examples], self.resamples, self.seed)

    def groups(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """{"": all, group: its questions}, (N,) bool; groups with too few questions are left out."""
        groups = np.array([group(e) for e in examples])
        found = {str(name): groups == name for name in sorted(set(groups))}
        everyone = np.ones(len(examples), dtype=bool)
        return {"": everyone} | {name: n for name, n in found.items() if n.sum() >= self.least}

    @cached_property
    def subsets(self) -> dict[str, np.ndarray]:
        """`groups` of the captured questions, and "right" and "wrong" by the model's answer."""
        right = np.array([vqa_accuracy(self.given[e.id], e.answers) >= RIGHT for e in self.captured])
        more = {"right": right, "wrong": ~right}
        return self.groups(self.captured) | {name: n for name, n in more.items() if n.sum() >= self.least}


def read_question(store: StatisticsStore, example: Example, scene: Scene) -> Question:
    """One question's statistics, and the number of patches that show what it asks about."""
    id = example.id
    mass_LHQG, axis = store.read(id, KIND, "mass"), store.axis(id, AXIS)
    objects = asked_objects([p.objects for p in example.phrases], scene)
    asked = 0
    if objects:
        boxes = [o.box for o in objects]
        asked = int(patches_of(boxes, (scene.width, scene.height), patch_grid(axis)).sum())
    where = f"{store.path}: examples/{id}/{KIND}"
    check_shares(mass_LHQG, f"{where}/mass")
    norm_LHQ = store.read(id, KIND, "head_norm") if "head_norm" in store.names(id, KIND) else None
    entropy_LHQ = store.read(id, KIND, "entropy")
    check_shares(entropy_LHQ / np.log(max(len(axis), 2)), f"{where}/entropy over its maximum")
    return Question(mass_LHQG, entropy_LHQ, axis, store.groups[AXIS], asked, norm_LHQ)
