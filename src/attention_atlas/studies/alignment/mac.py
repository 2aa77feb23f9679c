"""Evaluation of MAC on the test questions: accuracy by type, and attention of its read unit.

Grounding: the read attention of the answer step on the regions of the objects that the answer depends on
(`Example.extra["asked"]`, else the objects of the phrases). The answer step depends on training: it is the
step with the most attention on these objects in the split `select_on`, so the test questions do not influence
the choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_atlas.capture.engine import Capture
from attention_atlas.data.corpus import with_other_images
from attention_atlas.errors import AtlasError
from attention_atlas.studies.alignment.result import GAIN, RunResult, Shown
from attention_atlas.training.questions import spread
from attention_atlas.training.tasks.compositional import question_type

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example
    from attention_atlas.training.tasks.compositional import CompositionalTask, Questions

ANSWER_STEP = "answer step"


@dataclass
class MacEvaluator:
    """split: the evaluated questions, `judged` of them, evenly spaced (0: all). select_on: the split that
    selects the answer step, at most `choosing` questions. shown: number of questions kept with their
    attention.
    """

    split: str = "test"
    select_on: str = "val"
    judged: int = 0
    choosing: int = 400
    shown: int = 8
    batch_size: int = 256

    def __call__(self, model: Any, task: CompositionalTask, device: str) -> RunResult:
        """Scores and rows in per cent. Raises AtlasError if the split has no question."""
        model = model.to(device).eval()
        examples = _of(task, self.split, self.judged)
        looks = model.see is not None
        found = _run(model, task.questions(examples), device, self.batch_size, looks)
        rows: list[dict[str, Any]] = []
        for item in found:
            groups = {"type": question_type(item.example), "image": item.example.image_id}
            value = 100.0 * (item.predicted == item.right)
            rows.append({"example": item.example.id, "metric": "accuracy", "value": value, **groups})
        scores = {"accuracy": float(np.mean([row["value"] for row in rows]))}
        scores["chance accuracy"] = most_frequent(task.train.examples, examples)
        if not looks:
            return RunResult(scores, rows)
        turned = task.questions(with_other_images(examples))
        others = _run(model, turned, device, self.batch_size, looks)
        gains = [
            {
                "example": item.example.id,
                "metric": GAIN,
                "value": 100.0 * ((item.predicted == item.right) - (other.predicted == other.right)),
                "image": item.example.image_id,
            }
            for item, other in zip(found, others, strict=True)
        ]
        rows += gains
        scores[GAIN] = float(np.mean([row["value"] for row in gains]))
        chosen = _of(task, self.select_on, self.choosing)
        step = answer_step(
            _run(model, task.questions(chosen), device, self.batch_size, True), task, model.steps
        )
        grounding = []
        for item in found:
            gold_N = gold_places(item, task)
            if gold_N.any():
                grounding.append(_grounded(item.example.id, item.read_SN[step], gold_N))
        asked = [item for item in found if gold_places(item, task).any()]
        count = min(self.shown, len(asked))
        shown = [self._shown(asked[i * len(asked) // count], task) for i in range(count)]
        return RunResult(scores, rows, grounding, shown)

    def _shown(self, item: Looked, task: CompositionalTask) -> Shown:
        answer = task.answers[item.predicted]
        verdict = "right" if item.predicted == item.right else f"wrong: {item.example.answers[0]}"
        scene = task.corpus.scene(item.example)
        size, boxes, grid = (scene.width, scene.height), None, item.grid
        if grid is None:
            assert task.features is not None
            regions = task.features.read(item.example.image_id)
            size, boxes = regions.size, regions.boxes[: item.read_SN.shape[1]]
        return Shown(
            example=item.example.id,
            image=task.corpus.image_path(scene.image_id).as_posix(),
            size=size,
            words=[f"{s + 1}: {item.words[w]}" for s, w in enumerate(item.control_ST.argmax(1))],
            attn_WN=item.read_SN,
            boxes_N4=boxes,
            grid=grid,
            text=f"{item.example.text} {answer} ({verdict})",
        )


@dataclass
class Looked:
    """One question: the predicted answer, the right one (-1 if no training question has it), the words, and
    the attention of each step S over words T and over places N (regions, or cells of `grid` row by row)."""

    example: Example
    predicted: int
    right: int
    words: list[str]
    control_ST: np.ndarray
    read_SN: np.ndarray
    grid: tuple[int, int] | None = None


def _of(task: CompositionalTask, split: str, count: int) -> list[Example]:
    examples = sorted(task.corpus.split(split), key=lambda e: e.id)
    if not examples:
        raise AtlasError(f"{task.corpus.root}: split '{split}' has no question; check data and split names")
    return spread(examples, count)


@torch.no_grad()
def _run(model: Any, questions: Questions, device: str, batch_size: int, looks: bool) -> list[Looked]:
    capture = Capture(model, ["attn"])
    out = []
    for indices in questions.in_order(batch_size):
        batch = {k: v.to(device) for k, v in questions.batch(indices).items()}
        captured = capture(batch)
        predicted_B = captured.output.argmax(-1).tolist()
        control_BST = captured["control"].attn[:, :, 0, 0].float().numpy()
        read_BSN = captured["read"].attn[:, :, 0, 0].float().numpy()
        for row, i in enumerate(indices):
            count = read_BSN.shape[2]
            if looks and "regions_BN" in batch:
                count = int(batch["regions_BN"][row].sum())
            words = questions.words[i]
            out.append(
                Looked(
                    questions.examples[i],
                    predicted_B[row],
                    questions.answer[i],
                    words,
                    control_BST[row, :, : len(words)],
                    read_BSN[row, :, :count],
                    model.grid_shape(batch) if looks else None,
                )
            )
    return out


def most_frequent(train: Sequence[Example], judged: Sequence[Example]) -> float:
    """Accuracy on `judged` in per cent of each type's most frequent training answer."""
    counts: dict[str, Counter[str]] = {}
    for example in train:
        counts.setdefault(question_type(example), Counter())[example.answers[0]] += 1
    best = {kind: min(c, key=lambda a: (-c[a], a)) for kind, c in counts.items()}
    return 100 * float(np.mean([best.get(question_type(e)) == e.answers[0] for e in judged]))


def asked_objects(example: Example) -> list[int]:
    """Ids of the objects that the answer depends on: `extra["asked"]`, else those of the phrases."""
    asked = example.extra.get("asked")
    if asked is None:
        asked = [i for phrase in example.phrases for i in phrase.objects]
    return sorted({int(i) for i in asked})


def gold_places(item: Looked, task: CompositionalTask) -> np.ndarray:
    """(N,) bool: the regions whose gold object is asked for; for a grid, the cells with a centre in its
    box."""
    asked = asked_objects(item.example)
    if item.grid is None:
        assert task.features is not None
        gold_N = task.features.read(item.example.image_id).gold[: item.read_SN.shape[1]]
        return np.isin(gold_N, asked)
    scene = task.corpus.scene(item.example)
    return cells_in(item.grid, (scene.width, scene.height), [scene.object(i).box for i in asked])


def cells_in(grid: tuple[int, int], size: tuple[int, int], boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(rows*columns,) bool in raster order: cells whose centre is in one of the boxes, or, for a box too
    small to contain a centre, the cell that contains the box's centre."""
    rows, columns = grid
    y = (np.arange(rows) + 0.5) * size[1] / rows
    x = (np.arange(columns) + 0.5) * size[0] / columns
    out = np.zeros(grid, bool)
    for x1, y1, x2, y2 in boxes:
        inside = ((y >= y1) & (y < y2))[:, None] & ((x >= x1) & (x < x2))[None]
        if not inside.any():
            row = int(np.clip((y1 + y2) / 2 / size[1] * rows, 0, rows - 1))
            inside[row, int(np.clip((x1 + x2) / 2 / size[0] * columns, 0, columns - 1))] = True
        out |= inside
    return out.ravel()


def answer_step(found: Sequence[Looked], task: CompositionalTask, steps: int) -> int:
    """The step with the most read attention on the asked objects, on average; the last if no object is asked
    for."""
    masses = []
    for item in found:
        gold_N = gold_places(item, task)
        if gold_N.any():
            masses.append(item.read_SN[:, gold_N].sum(1))
    return int(np.mean(masses, 0).argmax()) if masses else steps - 1


def _grounded(example: str, read_N: np.ndarray, gold_N: np.ndarray) -> dict[str, Any]:
    return {
        "example": example,
        "word": ANSWER_STEP,
        "mass": float(np.clip(read_N[gold_N].sum(), 0, 1)),
        "chance": float(gold_N.mean()),
        "top1": int(gold_N[read_N.argmax()]),
    }
