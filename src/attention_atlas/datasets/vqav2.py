"""VQAv2 (Goyal et al. 2017): questions and annotations in the published JSON layout, COCO pictures by number.

A question's ten answers are in `answers`; `extra` has the official question type, the study's group, the
annotators' most frequent answer and, where the list of complementary pairs is given, the id of the other
question.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.datasets.pictures import picture_size
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.vqa.types import group_of, official_type

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

    parts: {picture set (train2014, val2014): {questions, annotations, split, pairs (optional)}}. VQAv2's test
    answers are secret: of a part with split `val`, `test_share` of the pictures, drawn by `seed`, are the
    split `test`. subset: at most so many questions of each group in each split, drawn by `seed` (none: all);
    with pairs both questions of a pair or none. groups: only these (none: all). file: a picture's path under
    `images`.
    Raises AtlasError for a missing file or field, a question without annotation or the reverse, a duplicated
    id.
    """
    if subset is not None and subset < 1:
        raise ConfigError(f"conf/data: subset: must be at least 1 or null, not {subset}")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for part, files in parts.items():
        split = str(files.get("split", "train"))
        check_split(split, f"conf/data: parts: {part}")
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
    used = {e.image_id for e in examples}
    scenes = {i: s for i, s in scenes.items() if i in used}
    if require_images:
        for scene in scenes.values():
            scene.width, scene.height = picture_size(Path(images) / scene.path)
    check_examples(examples, scenes, ", ".join(str(f.get("questions")) for f in parts.values()))
    return Corpus(Path(images), scenes, examples, name)


def _part(part: str, files: Mapping[str, Any]) -> list[Example]:
    for field in ("questions", "annotations"):
        if not files.get(field):
            raise ConfigError(f"conf/data: parts: {part}: {field}: is missing; give the path of the file")
    questions = _by_id(Path(files["questions"]), "questions")
    annotations = _by_id(Path(files["annotations"]), "annotations")
    other = _pairs(Path(files["pairs"])) if files.get("pairs") else {}
    lost = sorted(set(questions) ^ set(annotations))
    if lost:
        where, what = ("annotations", "annotation") if lost[0] in questions else ("questions", "question")
        raise AtlasError(f"{files[where]}: question {lost[0]}: no {what}; download both files anew")
    out = []
    for number in sorted(questions):
        row, notes = questions[number], annotations[number]
        try:
            text, image = str(row["question"]), int(row["image_id"])
            people = [str(a["answer"]) for a in notes["answers"]]
            answer = str(notes["multiple_choice_answer"])
        except (KeyError, TypeError, ValueError) as error:
            raise AtlasError(
                f"{files['annotations']}: question {number}: field {error} is missing or wrong; "
                "download the file anew"
            ) from None
        extra: dict[str, Any] = {
            "group": group_of(text),
            "question_type": str(notes.get("question_type") or official_type(text)),
            "answer": answer,
            "image": image,
        }
        if number in other:
            extra["pair"] = str(other[number])
        out.append(Example(str(number), f"{part}_{image}", text, answers=people, extra=extra))
    return out


def _by_id(path: Path, field: str) -> dict[int, dict[str, Any]]:
    value = _json(path)
    if not isinstance(value, dict) or not isinstance(value.get(field), list):
        raise AtlasError(f"{path}: {field}: is missing; give VQAv2's {field} file")
    rows: dict[int, dict[str, Any]] = {}
    for row in value[field]:
        if not isinstance(row, dict) or not isinstance(row.get("question_id"), int):
            raise AtlasError(f"{path}: question_id: is missing in a row of {field}; download the file anew")
        if row["question_id"] in rows:
            raise AtlasError(
                f"{path}: question_id: {row['question_id']} occurs twice; download the file anew"
            )
        rows[row["question_id"]] = row
    return rows


def _pairs(path: Path) -> dict[int, int]:
    value = _json(path)
    try:
        both = [(int(a), int(b)) for a, b in value]
    except (TypeError, ValueError):
        raise AtlasError(f"{path}: not a list of pairs of question ids; download the file anew") from None
    return {a: b for a, b in both} | {b: a for a, b in both}


def _json(path: Path) -> Any:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None


def _held(numbers: Sequence[int], share: float, seed: int) -> set[int]:
    order = np.random.default_rng([seed, 1]).permutation(len(numbers))
    return {numbers[i] for i in order[: round(share * len(numbers))]}


def _balanced(
    examples: Sequence[Example], scenes: Mapping[str, Scene], subset: int, seed: int
) -> list[Example]:
    """At most `subset` of each split and group, in file order; pairs stay together."""
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
