"""Evaluation of M4C: accuracy over ten answers, ANLS, correctness of copied words, and where its steps
attend: the attention of one head, and the pointer that copies (a softmax over the OCR words)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attention_atlas.data.corpus import with_other_images
from attention_atlas.data.ocr_file import OcrImage, OcrToken
from attention_atlas.language.vocabulary import BOS
from attention_atlas.measures.text.anls import anls
from attention_atlas.measures.vqa_accuracy import consensus, vqa_accuracy
from attention_atlas.regions.ocr import words_on
from attention_atlas.studies.alignment.result import GAIN, RunResult, Shown
from attention_atlas.training.scene_text import TextQuestions, answer_words, spell, token_word
from attention_atlas.training.tasks.text_vqa import generate_answers

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.training.tasks.text_vqa import TextVqaTask

GROUPS = ("type", "from", "words")  # keys of Example.extra, if present
Looks = tuple[list[str], np.ndarray]  # words of an answer, attention of the steps that produce them
POINTED = "pointer on the word"  # the pointer's probability of the right OCR word, per cent
LEAST_ALIKE = 0.6  # minimum similarity of an OCR word and the word on the sign that it matches


@dataclass
class M4cEvaluator:
    """split: the evaluated questions, `judged` of them, evenly spaced (0: all). select_on: the split that
    selects the head whose attention is measured, at most `choosing` questions (0: all). shown: number of
    questions kept with the attention of their steps, if possible with annotated words."""

    split: str = "test"
    select_on: str = "val"
    judged: int = 0
    choosing: int = 400
    shown: int = 6
    batch_size: int = 128

    def __call__(self, model: Any, task: TextVqaTask, device: str) -> RunResult:
        """Scores and rows in per cent. Raises AtlasError if the split has no question."""
        from attention_atlas.training.questions import spread

        model = model.to(device).eval()
        questions = task.questions(spread(task.of(self.split), self.judged))
        predicted = generate_answers(model, questions, self.batch_size)
        rows: list[dict[str, Any]] = []
        for example, answer in zip(questions.examples, predicted):
            groups = {g: str(example.extra[g]) for g in GROUPS if g in example.extra}
            groups["image"] = example.image_id
            right = float(answer == " ".join(answer_words(consensus(example.answers))))
            for metric, value in (
                ("accuracy", vqa_accuracy(answer, example.answers)),
                ("ANLS", anls(answer, example.answers)),
                ("exact", right),
            ):
                row = {"example": example.id, "metric": metric, "value": 100 * float(value), **groups}
                rows.append(row)
        scores = summary(rows)
        scores |= baselines(questions)
        if model.blind:
            return RunResult(scores, rows)
        exchanged = task.questions(with_other_images(questions.examples))
        others = generate_answers(model, exchanged, self.batch_size)
        for example, answer, other in zip(questions.examples, predicted, others, strict=True):
            gain = 100 * (vqa_accuracy(answer, example.answers) - vqa_accuracy(other, example.answers))
            rows.append(
                {"example": example.id, "metric": GAIN, "value": float(gain), "image": example.image_id}
            )
        scores[GAIN] = float(np.mean([row["value"] for row in rows if row["metric"] == GAIN]))
        chosen = task.questions(spread(task.of(self.select_on), self.choosing))
        attention, _ = steps_look(model, chosen, self.batch_size, device)
        head = best_head(chosen, attention, task)
        attention, pointers = steps_look(model, questions, self.batch_size, device)
        looks = [(words, attn_LHWO[head]) for words, attn_LHWO in attention]
        grounding, able, chances = [], [], []
        for i, example in enumerate(questions.examples):
            found = grounded(questions, i, looks[i], task)
            grounding += found
            if found:
                able.append(i)
            if example.extra.get("from") == "sign" and (pointed := grounded(questions, i, pointers[i], task)):
                chances.append(np.mean([row["chance"] for row in pointed]))
                value = 100 * float(np.mean([row["mass"] for row in pointed]))
                rows.append(
                    {"example": example.id, "metric": POINTED, "value": value, "image": example.image_id}
                )
        if chances:
            scores[POINTED] = float(np.mean([r["value"] for r in rows if r["metric"] == POINTED]))
            scores[f"chance {POINTED}"] = 100 * float(np.mean(chances))
        # Without annotated signs (TextVQA): questions about images with several OCR words.
        able = able or [i for i, (_, attn_WO) in enumerate(looks) if attn_WO.shape[1] > 1]
        count = min(self.shown, len(able))
        shown = [
            _shown(questions, i, predicted[i], looks[i], pointers[i], task)
            for i in (able[k * len(able) // count] for k in range(count))
        ]
        return RunResult(scores, rows, grounding, shown)


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means by metric; for `exact` also over answers copied from signs, and over those with new words."""

    def mean(metric: str, **wanted: str) -> list[float]:
        return [
            r["value"]
            for r in rows
            if r["metric"] == metric and all(r.get(k) == v for k, v in wanted.items())
        ]

    kinds = {
        "accuracy": mean("accuracy"),
        "ANLS": mean("ANLS"),
        "copied right": mean("exact", **{"from": "sign"}),
        "copied right, new words": mean("exact", **{"from": "sign", "words": "new"}),
        "vocabulary right": mean("exact", **{"from": "vocabulary"}),
    }
    return {name: float(np.mean(values)) for name, values in kinds.items() if values}


def baselines(questions: TextQuestions) -> dict[str, float]:
    """Accuracies in per cent without a model. `random words`: expected value for as many different words as
    the right answer has, drawn in random order from the OCR words. `best from OCR`: the best answer that
    vocabulary and OCR words allow."""
    drawn, best = [], []
    for example in questions.examples:
        read = [token_word(t) for t in questions.read[example.image_id]]
        length = len(answer_words(consensus(example.answers)))
        if len(read) < length or length > 2:
            drawn.append(0.0)
        else:
            drawn.append(float(np.mean([_score(p, example) for p in permutations(read, length)])))
        able = spell(example.answers, questions.answer_vocab, read, questions.steps - 1)
        best.append(max((_score(s.words, example) for s in able), default=0.0))
    return {
        "accuracy, random words": 100 * float(np.mean(drawn)),
        "accuracy, best from OCR": 100 * float(np.mean(best)),
    }


def _score(words: Sequence[str], example: Example) -> float:
    return vqa_accuracy(" ".join(words), example.answers)


@torch.no_grad()
def steps_look(
    model: Any, questions: TextQuestions, batch_size: int, device: str
) -> tuple[list[Looks], list[Looks]]:
    """For each question the words of its right answer and, for the step that produces each of them given the
    right previous words, the attention (L,H,W,O) to the OCR words in every layer and head, and the pointer's
    softmax (W,O) over the OCR words."""
    from attention_atlas.capture import Capture

    out: list[Looks] = []
    pointers: list[Looks] = []
    for indices in questions.in_order(batch_size):
        batch = questions.batch(indices)
        most = batch["ocr_BO"].shape[1]
        words = [
            answer_words(consensus(questions.examples[i].answers))[: questions.steps - 1] for i in indices
        ]
        steps = max(1, *map(len, words))
        previous_BS = torch.full((len(indices), steps), BOS)
        for b, (i, answer) in enumerate(zip(indices, words)):
            read = [token_word(t) for t in questions.read[questions.examples[i].image_id]]
            for t, word in enumerate(answer[:-1]):
                (known,) = questions.answer_vocab.encode([word])
                # OCR words come first: this measures how the model copies.
                size = len(questions.answer_vocab)
                previous_BS[b, t + 1] = size + read.index(word) if word in read else known
        batch["previous_BS"] = previous_BS
        keys = batch["ids_BT"].shape[1] + batch["regions_BN"].shape[1] + most
        capture = Capture(model, ["rows"], rows=list(range(keys, keys + steps)), layers="multimodal.*")
        batch = {k: v.to(device) for k, v in batch.items()}
        captured = capture(batch)
        pointer_BSO = model(batch)[..., -most:].softmax(-1).cpu().numpy()
        attn_BLHSO = captured["multimodal"].rows[..., keys - most : keys].cpu().numpy()
        for b, (i, answer) in enumerate(zip(indices, words)):
            count = len(questions.read[questions.examples[i].image_id])
            out.append((answer, attn_BLHSO[b, :, :, : len(answer), :count]))
            pointers.append((answer, pointer_BSO[b, : len(answer), :count]))
    return out, pointers


def best_head(questions: TextQuestions, looks: Sequence[Looks], task: TextVqaTask) -> tuple[int, int]:
    """(layer, head) whose steps attend most to the words they produce, over these questions; the first in a
    tie.

    Heads have different roles: their mean would hide the one that finds the word.
    """
    layers, heads = looks[0][1].shape[:2]
    mass_LH = np.zeros((layers, heads))
    for layer in range(layers):
        for head in range(heads):
            rows = [
                row["mass"]
                for i, (words, attn) in enumerate(looks)
                for row in grounded(questions, i, (words, attn[layer, head]), task)
            ]
            mass_LH[layer, head] = np.mean(rows) if rows else 0.0
    layer, head = divmod(int(mass_LH.argmax()), heads)
    return layer, head


def grounded(questions: TextQuestions, index: int, looks: Looks, task: TextVqaTask) -> list[dict[str, Any]]:
    """A row for each step: its attention (W,O) to the word of the sign that it produces, as a share of its
    attention to all OCR words. A step that produces no word of the sign (a colour) should attend to any of
    the sign's words.

    No row if the sign is unknown, if OCR missed its word, or if OCR found no other word.
    """
    example = questions.examples[index]
    read = questions.read[example.image_id]
    gold = gold_tokens(example, task.corpus, read, task.images[example.image_id].size)
    words, attn_WO = looks
    rows = []
    for word, attn_O, right in zip(words, attn_WO, gold):
        total = float(attn_O.sum())
        if not right or len(right) == len(read) or total <= 0:
            continue
        rows.append(
            {
                "example": example.id,
                "word": word,
                "mass": float(attn_O[right].sum()) / total,
                "chance": len(right) / len(read),
                "top1": int(int(attn_O.argmax()) in right),
            }
        )
    return rows


def gold_tokens(
    example: Example, corpus: Corpus, read: Sequence[OcrToken], size: tuple[int, int]
) -> list[list[int]]:
    """For each word of the right answer the indices of the OCR words that match it."""
    from rapidfuzz.distance import Levenshtein

    words = answer_words(consensus(example.answers))
    if "sign" not in example.extra:
        return [[] for _ in words]
    sign = corpus.scene(example).object(int(example.extra["sign"]))
    on = words_on(OcrImage(example.image_id, size, list(read)), sign.box)
    if example.extra.get("from") != "sign":
        return [on for _ in words]
    out: list[list[int]] = []
    for word in words:
        alike = {o: Levenshtein.normalized_similarity(token_word(read[o]), word) for o in on}
        best = max(alike.values(), default=0.0)
        out.append([o for o, a in alike.items() if a == best and best >= LEAST_ALIKE])
    return out


def _shown(
    questions: TextQuestions, index: int, predicted: str, looks: Looks, pointer: Looks, task: TextVqaTask
) -> Shown:
    """The head's attention for each word of the answer, then the pointer's."""
    example = questions.examples[index]
    words, attn_WO = looks
    right = " ".join(words)
    verdict = "right" if predicted == right else f"right: {right}"
    read = questions.read[example.image_id]
    return Shown(
        example=example.id,
        image=task.corpus.image_path(example.image_id).as_posix(),
        size=task.images[example.image_id].size,
        words=[*words, *(f"{word} (pointer)" for word in words)],
        attn_WN=np.concatenate([attn_WO, pointer[1]]),
        boxes_N4=np.array([t.box for t in read], np.float32),
        text=f"{example.text} {predicted or '(nothing)'} ({verdict})",
    )
