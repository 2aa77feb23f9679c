"""CLEVR (Johnson et al. 2017): scenes and questions in the published JSON layout.

A question's `extra` has its type (Table 5 of the alignment study), family and program, and `asked`: the
objects that the answer depends on, found by executing the program on the scene; the answer in the file must
be the program's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.corpus import Corpus, Example, Scene, SceneObject, check_examples, check_split
from attention_atlas.datasets.clevr_program import ATTRIBUTES, question_type, run
from attention_atlas.errors import AtlasError, ConfigError

# Of the published renderings: 480 × 320 pixels; Blender's lens of 35 mm on a sensor of 32 mm.
WIDTH, HEIGHT = 480, 320
FOCAL = WIDTH * 35 / 32
RADIUS = {"large": 0.7, "small": 0.35}


def read_clevr(
    parts: Mapping[str, Mapping[str, Any]],
    root: str | Path,
    name: str = "clevr",
    subset: int | None = None,
    templates: str | Path | None = None,
    check_answers: bool = True,
) -> Corpus:
    """Read the corpus.

    parts: {picture set (train, val): {questions, scenes, split, subset (optional)}}; CLEVR's own test set has
    neither scenes nor answers, so a second part of `val` may take the split `test` with `pictures: [first,
    end)`. subset: at most so many questions of each part, at even distances. templates: the folder
    CLEVR_1.0_templates, only for questions without a program. check_answers: whether each program must give
    the answer in the file.
    Raises AtlasError for a missing file or field, an unknown picture, a program that gives another answer.
    """
    if subset is not None and subset < 1:
        raise ConfigError(f"conf/data: subset: must be at least 1 or null, not {subset}")
    known = read_templates(templates) if templates else {}
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for part, files in parts.items():
        split = str(files.get("split", part))
        check_split(split, f"conf/data: parts: {part}")
        for field in ("questions", "scenes"):
            if not files.get(field):
                raise ConfigError(f"conf/data: parts: {part}: {field}: is missing; give the path of the file")
        own = _scenes(Path(files["scenes"]), split, files.get("pictures"))
        path = Path(files["questions"])
        rows = [row for row in _rows(path, "questions") if str(row.get("image_filename")) in own]
        if not rows:
            raise AtlasError(
                f"{path}: no question about a picture of {files['scenes']}; give files of one set"
            )
        if subset is not None and subset < len(rows):
            rows = [rows[i * len(rows) // subset] for i in range(subset)]
        for row in rows:
            scene, raw = own[str(row["image_filename"])]
            example = _example(row, scene, raw, known, path, check_answers)
            scenes[scene.image_id] = scene
            examples.append(example)
    check_examples(examples, scenes, ", ".join(str(f["questions"]) for f in parts.values()))
    return Corpus(Path(root), scenes, examples, name)


def read_templates(folder: str | Path) -> dict[tuple[str, int], str]:
    """{(file name, number of the template in it): type} of the public question templates.

    Raises AtlasError when the folder has none.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise AtlasError(f"{folder}: no question templates; give the folder CLEVR_1.0_templates")
    found = {}
    for path in paths:
        for number, template in enumerate(_json(path)):
            try:
                found[path.name, number] = question_type(template["nodes"][-1]["type"])
            except (KeyError, IndexError, TypeError):
                raise AtlasError(f"{path}: template {number}: nodes: is missing; download it anew") from None
    return found


def _scenes(path: Path, split: str, pictures: Any) -> dict[str, tuple[Scene, dict[str, Any]]]:
    """{picture file: (Scene, row of the file)}, of all pictures or of those numbered from..to."""
    out = {}
    for row in _rows(path, "scenes"):
        file, number = str(row.get("image_filename", "")), row.get("image_index")
        at = f"{path}: scene '{file}'"
        if not file or not isinstance(number, int):
            raise AtlasError(f"{at}: image_filename or image_index is missing; download the file anew")
        if pictures is not None and not int(pictures[0]) <= number < int(pictures[1]):
            continue
        try:
            objects = [_object(i, thing) for i, thing in enumerate(row["objects"])]
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise AtlasError(f"{at}: objects: {error} is missing or wrong; download the file anew") from None
        folder = str(row.get("split") or split)
        scene = Scene(Path(file).stem, f"images/{folder}/{file}", WIDTH, HEIGHT, split, objects)
        out[file] = (scene, row)
    return out


def _object(number: int, row: Mapping[str, Any]) -> SceneObject:
    """CLEVR publishes no boxes: the one of a sphere of the object's size at its place is taken."""
    x, y, depth = (float(v) for v in row["pixel_coords"])
    half = FOCAL * RADIUS[row["size"]] / depth
    box = (max(x - half, 0.0), max(y - half, 0.0), min(x + half, float(WIDTH)), min(y + half, float(HEIGHT)))
    area = round((box[2] - box[0]) * (box[3] - box[1]))
    return SceneObject(number, str(row["shape"]), [str(row[a]) for a in ATTRIBUTES[:3]], box, area)


def _example(
    row: Mapping[str, Any],
    scene: Scene,
    raw: Mapping[str, Any],
    templates: Mapping[tuple[str, int], str],
    path: Path,
    check_answers: bool,
) -> Example:
    number = row.get("question_index")
    at = f"{path}: question {number}"
    if not isinstance(number, int) or "question" not in row or "answer" not in row:
        raise AtlasError(f"{at}: question, answer or question_index is missing; take the train or val set")
    answer = row["answer"]
    answer = ("yes" if answer else "no") if isinstance(answer, bool) else str(answer)
    family, program = row.get("question_family_index"), row.get("program")
    extra: dict[str, Any] = {"family": family}
    if program:
        # The generator calls a step `type`, the published files `function`.
        steps = [{**step, "function": step.get("function", step.get("type"))} for step in program]
        said, asked = run(steps, raw["objects"], raw.get("relationships") or {})
        if check_answers and said != answer:
            raise AtlasError(
                f"{at}: answer: is '{answer}', but its program gives '{said}' on scene {scene.image_id}; "
                "give scenes and questions of one set"
            )
        extra |= {"type": question_type(str(steps[-1]["function"])), "program": program, "asked": asked}
    else:
        key = (str(row.get("template_filename")), int(family) if isinstance(family, int) else -1)
        if key not in templates:
            raise AtlasError(
                f"{at}: program: is missing, and '{key[0]}' number {key[1]} is no known template; "
                "give files with programs, or templates"
            )
        extra |= {"type": templates[key]}
    prefix = Path(scene.image_id).name
    return Example(f"{prefix}_q{number}", scene.image_id, str(row["question"]), answers=[answer], extra=extra)


def _rows(path: Path, field: str) -> list[dict[str, Any]]:
    value = _json(path)
    if not isinstance(value, dict) or not isinstance(value.get(field), list):
        raise AtlasError(f"{path}: {field}: is missing; give CLEVR's {field} file")
    return list(value[field])


def _json(path: Path) -> Any:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None
