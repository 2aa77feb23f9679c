"""Compositional questions with programs, after CLEVR, whose words do not predict the answer.

Within each form of question (its words without attribute words) the answers are as balanced as the tables
allow, so that a model without the image has little information.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np

from attention_atlas.data.corpus import Example, write_examples
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean
from attention_atlas.synthetic.tabletop.asking import TYPES, Question
from attention_atlas.synthetic.tabletop.sampling import Sampler
from attention_atlas.synthetic.tabletop.table import Table, read_tables

# Shares of CLEVR's training questions (Johnson et al. 2017, Figure 3).
SHARES = {
    "Exist": 0.135,
    "Count": 0.235,
    "Query Attribute": 0.36,
    "Compare Attribute": 0.18,
    "Compare Integer": 0.09,
}
DRAWS = 12  # candidates per question
CHUNK = 500  # tables among which answers are balanced, by one process


class Questions:
    """The annotator of data=tabletop_questions: `per_scene` questions for each scene.

    shares: of the types (Exist, Count, Query Attribute, Compare Attribute, Compare Integer). workers: number
    of processes, 0: one per core; it does not affect the questions.
    """

    def __init__(self, per_scene: int = 8, shares: dict[str, float] | None = None, workers: int = 1) -> None:
        if per_scene < 1:
            raise ConfigError(f"Questions: per_scene: {per_scene} is less than 1")
        self.per_scene, self.workers = per_scene, workers or os.cpu_count() or 1
        self.shares = dict(SHARES if shares is None else shares)
        for name, share in self.shares.items():
            if name not in TYPES:
                raise ConfigError(f"Questions: shares: '{name}'{did_you_mean(name, TYPES)}")
            if share < 0:
                raise ConfigError(f"Questions: shares: {name}: {share} is below 0")
        if not sum(self.shares.values()):
            raise ConfigError("Questions: shares: all are 0; give one type a share")

    def of_tables(
        self, tables: Sequence[tuple[str, Table]], rng: np.random.Generator
    ) -> list[tuple[str, Question]]:
        """Questions with their image ids, balanced among these tables."""
        answers: Counter[tuple[str, str]] = Counter()  # of a form, and of a type
        kept: list[tuple[str, Question]] = []
        names = list(self.shares)
        weights = np.array([self.shares[n] for n in names])
        wanted = _in_turn(names, weights / weights.sum(), self.per_scene * len(tables), rng)
        for number, (image_id, table) in enumerate(tables):
            sampler, texts = Sampler(table, Random(int(rng.integers(2**62)))), set[str]()
            for type_ in wanted[number * self.per_scene : (number + 1) * self.per_scene]:
                fresh: list[Question] = []
                for hops in range(sampler.hops(type_), -1, -1):  # few tables allow three hops
                    drawn = (sampler.of_type(type_, hops) for _ in range(DRAWS))
                    fresh = [q for q in drawn if q is not None and q.telling.text not in texts]
                    if fresh:
                        break
                if not fresh:
                    continue
                best = min(fresh, key=lambda q: _excess(q, answers))
                for key in _keys(best):
                    answers[key, best.answer] += 1
                texts.add(best.telling.text)
                kept.append((image_id, best))
        return kept

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the questions of every split under `corpus_root` to `out` (Examples, one per line)."""
        from joblib import Parallel, delayed

        tables = read_tables(corpus_root)
        jobs = []
        for number, split in enumerate(sorted({scene.split for scene, _ in tables.values()})):
            some = [(i, table) for i, (scene, table) in tables.items() if scene.split == split]
            for first in range(0, len(some), CHUNK):
                rng = np.random.default_rng([seed, number, 7, first])
                jobs.append(delayed(self._examples)(some[first : first + CHUNK], rng))
        parts = Parallel(max(1, min(self.workers, len(jobs))))(jobs)
        examples = [example for part in parts for example in part]
        if not examples:
            raise AtlasError(f"{corpus_root}: no scene can be asked about; render the world again")
        write_examples(out, sorted(examples, key=lambda e: e.id))

    def _examples(self, tables: Sequence[tuple[str, Table]], rng: np.random.Generator) -> list[Example]:
        count: Counter[str] = Counter()
        examples = []
        for image_id, question in self.of_tables(tables, rng):
            examples.append(_example(f"{image_id}.q{count[image_id]}", image_id, question))
            count[image_id] += 1
        return examples


def _in_turn(names: list[str], shares: np.ndarray, number: int, rng: np.random.Generator) -> list[str]:
    """`number` names in these proportions, in random order."""
    whole = np.floor(shares * number).astype(int)
    whole[np.argsort(-(shares * number - whole), kind="stable")[: number - int(whole.sum())]] += 1
    listed = [name for name, times in zip(names, whole, strict=True) for _ in range(times)]
    return [listed[int(i)] for i in rng.permutation(len(listed))]


def _keys(question: Question) -> tuple[str, str]:
    return question.form, question.family


def _excess(question: Question, answers: Counter[tuple[str, str]]) -> tuple[int, int]:
    """How often its answer has already occurred, for its form and for its family."""
    form, family = (answers[key, question.answer] for key in _keys(question))
    return form, family


def _example(example_id: str, image_id: str, question: Question) -> Example:
    extra = {
        "type": question.type,
        "family": question.family,
        "program": question.program.rows(),
        "asked": list(question.asked),
    }
    telling = question.telling
    return Example(example_id, image_id, telling.text, telling.phrases, [], [question.answer], extra)
