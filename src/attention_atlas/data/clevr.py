"""CLEVR (Johnson et al. 2017): scenes and questions in the published JSON layout.

A question's `extra` has its type (Table 5 of the alignment study), family and program, and `asked`: the
objects that the answer depends on, found by executing the program on the scene. The answer in the file must
equal the program's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from attention_atlas.data.clevr_program import ATTRIBUTES, question_type, run
from attention_atlas.data.corpus import Corpus, Example, Scene, SceneObject, check_examples, check_split
from attention_atlas.data.json_rows import REMEDY, items, read_published, reals, row_list, text, value
from attention_atlas.data.json_rows import answer as answer_of
from attention_atlas.data.json_rows import number as number_of
from attention_atlas.errors import AtlasError, ConfigError

# The published renderings: 480 × 320 pixels; Blender's lens of 35 mm on a sensor of 32 mm.
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

    parts: {image set (train, val): {questions, scenes, split, subset (optional)}}; CLEVR's own test set has
    neither scenes nor answers, so a second part of `val` may take the split `test` with `images: [first,
    end)`. subset: maximum number of questions per part, evenly spaced. templates: the folder
    CLEVR_1.0_templates, only for questions without a program. check_answers: whether each program must give
    the answer in the file.
    Raises AtlasError for a missing file or field, an unknown image, or a program with another answer.
    """
    if subset is not None and subset < 1:
        raise ConfigError(f"read_clevr: subset: must be at least 1 or null, not {subset}")
    known = read_templates(templates) if templates else {}
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for part, files in parts.items():
        split = str(files.get("split", part))
        check_split(split, f"read_clevr: parts: {part}")
        for field in ("questions", "scenes"):
            if not files.get(field):
                raise ConfigError(f"read_clevr: parts: {part}: {field}: is missing; give the file's path")
        own = _scenes(Path(files["scenes"]), split)
        path = Path(files["questions"])
        rows = _about(own, path, files.get("images"))
        if not rows:
            raise AtlasError(f"{path}: no question about an image of {files['scenes']}; use files of one set")
        if subset is not None and subset < len(rows):
            rows = [rows[i * len(rows) // subset] for i in range(subset)]
        for row in rows:
            scene, raw = own[row["image_filename"]]
            example = _example(row, scene, raw, known, path, check_answers)
            scenes[scene.image_id] = scene
            examples.append(example)
    check_examples(examples, scenes, ", ".join(str(f["questions"]) for f in parts.values()))
    return Corpus(Path(root), scenes, examples, name)


def read_templates(folder: str | Path) -> dict[tuple[str, int], str]:
    """{(file name, number of the template in it): type} of the public question templates.

    Raises AtlasError if the folder has none.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise AtlasError(f"{folder}: no question templates; give the folder CLEVR_1.0_templates")
    found = {}
    for path in paths:
        for number, template in enumerate(read_published(path)):
            try:
                found[path.name, number] = question_type(template["nodes"][-1]["type"])
            except (KeyError, IndexError, TypeError):
                raise AtlasError(
                    f"{path}: template {number}: nodes: is missing; download the file again"
                ) from None
    return found


def _about(own: Mapping[str, tuple[Scene, dict[str, Any]]], path: Path, images: Any) -> list[dict[str, Any]]:
    """Questions on all images, or on those numbered from..to. Raises AtlasError for an unknown image."""
    rows = []
    for i, row in enumerate(row_list(read_published(path), "questions", path, "CLEVR's questions file")):
        where = f"{path}: questions: {i}"
        file = text(row, "image_filename", where)
        if file not in own:
            raise AtlasError(
                f"{where}: image_filename: no scene of '{file}'; use questions and scenes of one set"
            )
        number = own[file][1]["image_index"]
        if row.get("image_index", number) != number:
            raise AtlasError(
                f"{where}: image_index: is {row['image_index']}, but {number} in the scenes; use "
                "questions and scenes of one set"
            )
        if images is None or int(images[0]) <= number < int(images[1]):
            rows.append(row)
    return rows


def _scenes(path: Path, split: str) -> dict[str, tuple[Scene, dict[str, Any]]]:
    """{image file: (Scene, row of the file)}."""
    out = {}
    for i, row in enumerate(row_list(read_published(path), "scenes", path, "CLEVR's scenes file")):
        where = f"{path}: scenes: {i}"
        file = text(row, "image_filename", where)
        number_of(row, "image_index", where)
        at = f"{path}: scene '{file}'"
        if file in out:
            raise AtlasError(f"{at}: image_filename: occurs twice; download the file again")
        objects = [
            _object(n, thing, f"{at}: objects: {n}") for n, thing in enumerate(items(row, "objects", at))
        ]
        folder = str(row.get("split") or split)
        scene = Scene(Path(file).stem, f"images/{folder}/{file}", WIDTH, HEIGHT, split, objects)
        out[file] = (scene, row)
    return out


def _object(number: int, row: Mapping[str, Any], where: str) -> SceneObject:
    """The box of a sphere of the object's size at its position, because CLEVR publishes no boxes."""
    x, y, depth = reals(row, "pixel_coords", where, 3)
    size = text(row, "size", where)
    if size not in RADIUS or depth <= 0:
        raise AtlasError(f"{where}: size: '{size}' at depth {depth} is not one of CLEVR's; {REMEDY}")
    half = FOCAL * RADIUS[size] / depth
    box = (max(x - half, 0.0), max(y - half, 0.0), min(x + half, float(WIDTH)), min(y + half, float(HEIGHT)))
    area = round((box[2] - box[0]) * (box[3] - box[1]))
    attributes = [text(row, a, where) for a in ATTRIBUTES[:3]]
    return SceneObject(number, text(row, "shape", where), attributes, box, area)


def _example(
    row: Mapping[str, Any],
    scene: Scene,
    raw: Mapping[str, Any],
    templates: Mapping[tuple[str, int], str],
    path: Path,
    check_answers: bool,
) -> Example:
    at = f"{path}: question {row.get('question_index')}"
    number, question = number_of(row, "question_index", at), text(row, "question", at)
    if "answer" not in row:
        raise AtlasError(f"{at}: answer: field is missing; use the train or val set")
    # The generator writes booleans.
    given = row["answer"]
    answer = ("yes" if given else "no") if isinstance(given, bool) else answer_of(row, "answer", at)
    family, program = row.get("question_family_index"), row.get("program")
    extra: dict[str, Any] = {"family": family}
    if program:
        # The generator calls a step `type`, the published files `function`.
        steps = [
            {**step, "function": text(step, "function" if "function" in step else "type", at)}
            for step in ({**value({"program": s}, "program", at)} for s in items(row, "program", at))
        ]
        try:
            computed, asked = run(steps, raw["objects"], raw.get("relationships") or {})
        except AtlasError as error:
            raise AtlasError(f"{at}: {error}") from None
        if check_answers and computed != answer:
            raise AtlasError(
                f"{at}: answer: is '{answer}', but its program gives '{computed}' on scene {scene.image_id}; "
                "use scenes and questions of one set"
            )
        extra |= {"type": question_type(str(steps[-1]["function"])), "program": program, "asked": asked}
    else:
        key = (str(row.get("template_filename")), int(family) if isinstance(family, int) else -1)
        if key not in templates:
            raise AtlasError(
                f"{at}: program: is missing, and '{key[0]}' number {key[1]} is not a known template; "
                "give files with programs, or templates"
            )
        extra |= {"type": templates[key]}
    prefix = Path(scene.image_id).name
    return Example(f"{prefix}_q{number}", scene.image_id, question, answers=[answer], extra=extra)
