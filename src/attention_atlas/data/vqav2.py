"""VQAv2 (Goyal et al. 2017): questions and annotations in the published JSON layout, COCO images by number.

A question's ten answers are in `answers`; `extra` has the official question type, the study's group, the
annotators' most frequent answer and, if the list of complementary pairs is given, the id of the other
question.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Scene, check_split
from attention_atlas.data.images import used_corpus
from attention_atlas.data.json_rows import REMEDY, answer, items, number, read_published, row_list, text
from attention_atlas.data.question_types import group_of, official_type
from attention_atlas.errors import AtlasError, ConfigError

COCO = "{part}/COCO_{part}_{number:012d}.jpg"


def read_vqav2(
    parts: Mapping[str, Mapping[str, Any]],
    images: str | Path,
    name: str = "vqav2",
    subset: int | None = None,
    groups: Sequence[str] = (),
    test_share: float = 0.5,
    seed: int = 0,
    file: str = COCO,
    require_images: bool = True,
) -> Corpus:
    """Read the corpus.

    parts: {image set (train2014, val2014): {questions, annotations, split, pairs (optional)}}. VQAv2's test
    answers are not public, so a fraction `test_share` of the images of a part with split `val`, drawn with
    `seed`, becomes the split `test`. subset: maximum number of questions per group and split, drawn with
    `seed` (None: all); with pairs, both questions of a pair or neither. groups: only these (None: all). file:
    an image's path below `images`.
    Raises AtlasError for a missing file, a field that is missing, null or of another type, a question without
    annotation or vice versa, an image id that differs between the two files, or a duplicate id.
    """
    if subset is not None and subset < 1:
        raise ConfigError(f"read_vqav2: subset: must be at least 1 or null, not {subset}")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for part, files in parts.items():
        split = str(files.get("split", "train"))
        check_split(split, f"read_vqav2: parts: {part}")
        found = _part(part, files)
        numbers = sorted({int(e.extra["image"]) for e in found})
        held = _held(numbers, test_share, seed) if split == "val" else set()
        for example in found:
            number = int(example.extra.pop("image"))
            scene_split = "test" if number in held else split
            if example.image_id not in scenes:
                path = file.format(part=part, number=number)
                scenes[example.image_id] = Scene(example.image_id, path, 0, 0, scene_split)
        examples += found
    if groups:
        examples = [e for e in examples if e.extra["group"] in groups]
    if subset is not None:
        examples = _balanced(examples, scenes, subset, seed)
    return used_corpus(images, scenes, examples, name, parts, require_images)


def _part(part: str, files: Mapping[str, Any]) -> list[Example]:
    for field in ("questions", "annotations"):
        if not files.get(field):
            raise ConfigError(f"read_vqav2: parts: {part}: {field}: is missing; give the file's path")
    questions = _by_id(Path(files["questions"]), "questions")
    annotations = _by_id(Path(files["annotations"]), "annotations")
    other = _pairs(Path(files["pairs"])) if files.get("pairs") else {}
    lost = sorted(set(questions) ^ set(annotations))
    if lost:
        where, what = ("annotations", "annotation") if lost[0] in questions else ("questions", "question")
        raise AtlasError(f"{files[where]}: question {lost[0]}: no {what}; download both files again")
    out = []
    for question in sorted(questions):
        row, notes = questions[question], annotations[question]
        at = f"{files['questions']}: question {question}"
        words, image = text(row, "question", at), number(row, "image_id", at)
        at = f"{files['annotations']}: question {question}"
        # Both published files have it; compare only if the annotations do too.
        if "image_id" in notes and number(notes, "image_id", at) != image:
            raise AtlasError(
                f"{at}: image_id: is {notes['image_id']}, but {image} in {files['questions']}; "
                "use questions and annotations of one release"
            )
        people = [answer(a, "answer", f"{at}: answers") for a in items(notes, "answers", at)]
        official = text(notes, "question_type", at) if notes.get("question_type") is not None else ""
        extra: dict[str, Any] = {
            "group": group_of(words),
            "question_type": official or official_type(words),
            "answer": answer(notes, "multiple_choice_answer", at),
            "image": image,
        }
        if question in other:
            extra["pair"] = str(other[question])
        out.append(Example(str(question), f"{part}_{image}", words, answers=people, extra=extra))
    return out


def _by_id(path: Path, field: str) -> dict[int, dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for i, row in enumerate(row_list(read_published(path), field, path, f"VQAv2's {field} file")):
        question = number(row, "question_id", f"{path}: {field}: {i}")
        if question in rows:
            raise AtlasError(f"{path}: question_id: {question} occurs twice; download the file again")
        rows[question] = row
    return rows


def _pairs(path: Path) -> dict[int, int]:
    try:
        both = [(int(a), int(b)) for a, b in read_published(path)]
    except (TypeError, ValueError):
        raise AtlasError(f"{path}: not a list of pairs of question ids; {REMEDY}") from None
    return {a: b for a, b in both} | {b: a for a, b in both}


def _held(numbers: Sequence[int], share: float, seed: int) -> set[int]:
    order = np.random.default_rng([seed, 1]).permutation(len(numbers))
    return {numbers[i] for i in order[: round(share * len(numbers))]}


def _balanced(
    examples: Sequence[Example], scenes: Mapping[str, Scene], subset: int, seed: int
) -> list[Example]:
    """At most `subset` examples per split and group, in file order; pairs stay together."""
    known = {e.id: e for e in examples}
    kept: set[str] = set()
    count: dict[tuple[str, str], int] = {}
    for i in np.random.default_rng([seed, 2]).permutation(len(examples)):
        first = examples[i]
        other = known.get(str(first.extra.get("pair", "")))
        together = [e for e in (first, other) if e is not None and e.id not in kept]
        keys = [(scenes[e.image_id].split, str(e.extra["group"])) for e in together]
        if all(count.get(key, 0) + keys.count(key) <= subset for key in keys):
            kept |= {e.id for e in together}
            for key in keys:
                count[key] = count.get(key, 0) + 1
    return [e for e in examples if e.id in kept]
