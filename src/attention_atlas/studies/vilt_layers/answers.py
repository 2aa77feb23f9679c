"""Answers of a trained model to all questions of a split, and baselines that need no image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attention_atlas.data.corpus import with_other_images
from attention_atlas.data.json_rows import items, text
from attention_atlas.data.question_types import group_of
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_json, read_jsonl
from attention_atlas.measures.vqa_accuracy import consensus
from attention_atlas.progress import progress

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.training.questions import QuestionBatches

CHOSEN = "chosen.json"  # next to a dump's attention.h5: how each of its questions was chosen


def group(example: Example) -> str:
    """The study's group of a question, from its annotation or its first words."""
    return str(example.extra.get("group") or group_of(example.text))


def read_answers(folder: str | Path) -> list[str]:
    """The answer list of a run folder."""
    path = Path(folder) / "answers.json"
    value = read_json(path, "train the model on questions (dvc repro)", "atlas.vqa/1")
    return [text({"answers": a}, "answers", str(path)) for a in items(value, "answers", str(path))]


@torch.no_grad()
def answer_questions(model: Any, data: QuestionBatches, batch_size: int, device: str) -> list[dict[str, Any]]:
    """{id, answer, probability} of every question, in order."""
    rows = []
    for indices in progress(data.in_order(batch_size), "answer"):
        batch = {k: v.to(device) for k, v in data.batch(indices).items()}
        best_B = model(batch).sigmoid().max(-1)
        for i, score, best in zip(indices, best_B.values.tolist(), best_B.indices.tolist()):
            rows.append(
                {"id": data.examples[i].id, "answer": data.answers[best], "probability": round(score, 4)}
            )
    return rows


def read_given(path: str | Path, field: str = "answer") -> dict[str, str]:
    """{question id: answer} of a file of `answer_split`; field `other`: with another image."""
    given: dict[str, str] = {}
    for line, row in read_jsonl(path):
        where = f"{path}: line {line}"
        given[text(row, "id", where)] = text(row, field, where)
    return given


def majority(train: Sequence[Example], asked: Sequence[Example], by: str = "question") -> dict[str, str]:
    """{question id: answer} without the image: the most frequent consensus answer in training for the same
    text (`by` question; for unseen questions, for the group), for the group (`group`), or overall (`all`)."""
    everywhere: Counter[str] = Counter()
    of_group: dict[str, Counter[str]] = {}
    of_text: dict[str, Counter[str]] = {}
    for example in train:
        answer = consensus(example.answers)
        everywhere[answer] += 1
        of_group.setdefault(group(example), Counter())[answer] += 1
        of_text.setdefault(example.text.lower(), Counter())[answer] += 1
    if not everywhere:
        raise AtlasError("VQA: no training questions to count answers; check data and split names")
    known: dict[str, str] = {}
    for example in asked:
        counts = everywhere
        if by in ("group", "question"):
            counts = of_group.get(group(example), counts)
        if by == "question":
            counts = of_text.get(example.text.lower(), counts)
        known[example.id] = most_common(counts)
    return known


def most_common(counts: Mapping[str, int]) -> str:
    """The most frequent answer; ties in alphabetical order."""
    return min(counts, key=lambda a: (-counts[a], a))


def answer_split(
    model: Any,
    corpus: Corpus,
    split: str,
    vocab: Any,
    config: Mapping[str, Any],
    folder: str | Path,
    device: str,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Answers of a run (its configuration and folder) to all questions of a split, by id. Unless the model is
    blind, `other` is its answer when another image is shown."""
    from attention_atlas.training.questions import of_run

    examples = sorted(corpus.split(split), key=lambda e: e.id)
    answers = read_answers(folder)
    rows = answer_questions(model, of_run(corpus, examples, vocab, config, answers), batch_size, device)
    if not model.blind:
        turned = of_run(corpus, with_other_images(examples), vocab, config, answers)
        for row, other in zip(rows, answer_questions(model, turned, batch_size, device), strict=True):
            row["other"] = other["answer"]
    return rows


def score(rows: Sequence[Mapping[str, Any]], corpus: Corpus) -> dict[str, float]:
    """Official accuracy in per cent, over all and by group, for MLflow."""
    from attention_atlas.measures.vqa_accuracy import vqa_accuracy

    known = {e.id: e for e in corpus.examples}
    found: dict[str, list[float]] = {"accuracy": []}
    for row in rows:
        example = known[row["id"]]
        value = 100 * vqa_accuracy(row["answer"], example.answers)
        found["accuracy"].append(value)
        found.setdefault(f"accuracy {group(example)}", []).append(value)
    return {name: sum(values) / len(values) for name, values in sorted(found.items())}
