"""Accuracy of the model, of the blind model and of the most frequent answers, by group and official type,
with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attention_atlas.data.question_types import official_type
from attention_atlas.errors import AtlasError
from attention_atlas.measures.bootstrap import paired_difference
from attention_atlas.measures.means import Sample, mean_rows
from attention_atlas.measures.vqa_accuracy import vqa_accuracy
from attention_atlas.studies.vilt_layers.answers import group

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example
    from attention_atlas.studies.vilt_layers.record import Record

KIND = "answer"


class Who(NamedTuple):
    """Who answers: a model, with its own image or another `input`; or `majority`, a baseline without the
    image (condition: what the most frequent answer is counted over)."""

    model: str
    input: str = ""
    condition: str = ""


class Accuracy:
    """`accuracy_rows` of all questions of the split."""

    def rows(self, record: Record) -> list[dict[str, Any]]:
        questions = sorted(record.corpus.split(record.split), key=lambda e: e.id)
        return accuracy_rows(questions, record.answers, record.model, record.resamples, record.seed)


def accuracies(questions: Sequence[Example], given: Mapping[str, str], who: str) -> np.ndarray:
    """(N,) official accuracy in per cent."""
    absent = [e.id for e in questions if e.id not in given]
    if absent:
        raise AtlasError(f"answers of '{who}': none for question '{absent[0]}'; run vilt_generate again")
    return np.array([100 * vqa_accuracy(given[e.id], e.answers) for e in questions])


def accuracy_rows(
    questions: Sequence[Example],
    answers: Mapping[Who, Mapping[str, str]],
    model: str,
    resamples: int,
    seed: int,
) -> list[dict[str, Any]]:
    """`accuracy` of all models and baselines, over all questions and by group; of the model also by official
    type (condition `official type`); its difference from each of the others (paired over images) with its p;
    `pair accuracy`: share of pairs with both questions answered correctly (accuracy at least a
    half)."""
    sample = Sample.of([e.image_id for e in questions], resamples, seed)
    groups = np.array([group(e) for e in questions])
    types = np.array([e.extra.get("question_type") or official_type(e.text) for e in questions])
    subsets = {"": np.ones(len(questions), dtype=bool)}
    subsets |= {str(name): groups == name for name in sorted(set(groups))}
    right = {who: accuracies(questions, given, who.model) for who, given in answers.items()}
    own = right[Who(model)]
    rows: list[dict[str, Any]] = []
    for who, values_N in right.items():
        at = {"kind": KIND, "model": who.model, "input": who.input, "condition": who.condition}
        for name, chosen_N in subsets.items():
            of_group = at | {"measure": "accuracy", "group": name}
            rows += mean_rows(sample, values_N[:, None], of_group, chosen_N=chosen_N)
        rows += [at | row for row in pair_rows(questions, values_N, subsets, sample)]
    for name in sorted(set(types)):
        at = {"kind": KIND, "model": model, "measure": "accuracy", "condition": "official type"}
        rows += mean_rows(sample, own[:, None], at | {"group": str(name)}, chosen_N=types == name)
    for who, values_N in right.items():
        if who == Who(model):
            continue
        for name, chosen_N in subsets.items():
            first, second = (sample.sums(v[:, None], chosen_N) for v in (own, values_N))
            found = paired_difference(first, second, sample.counts_BI)
            versus: dict[str, Any] = {"kind": KIND, "model": model, "measure": "accuracy", "group": name}
            versus |= {"against": who.input or who.model, "condition": who.condition}
            versus["n"] = int(chosen_N.sum())
            limits = {"ci_low": float(found.ci_low[0]), "ci_high": float(found.ci_high[0]), "chance": 0.0}
            rows.append(versus | limits | {"value": float(found.value[0])})
            rows.append(versus | {"statistic": "p", "value": float(found.p[0])})
    return rows


def pair_rows(
    questions: Sequence[Example],
    values_N: np.ndarray,
    subsets: Mapping[str, np.ndarray],
    sample: Sample,
) -> list[dict[str, Any]]:
    """Both questions of a pair correct, in per cent; giving both the same answer scores 0. No rows if there
    are no pairs.
    """
    index = {e.id: n for n, e in enumerate(questions)}
    other_N = np.array([index.get(str(e.extra.get("pair", "")), -1) for e in questions])
    paired = other_N >= 0
    if not paired.any():
        return []
    both_N = 100.0 * ((values_N >= 50) & (values_N[other_N] >= 50))
    return [
        row
        for name, chosen_N in subsets.items()
        if (chosen_N & paired).any()
        for row in mean_rows(
            sample,
            both_N[:, None],
            {"measure": "pair accuracy", "group": name},
            chosen_N=chosen_N & paired,
        )
    ]
