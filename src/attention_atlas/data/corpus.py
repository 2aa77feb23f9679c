"""Scenes and texts: the common format of synthetic worlds and readers of real corpora.

A data set is a folder with `scenes.jsonl` (image level) and one or more text layers `<layer>.jsonl`
(text level). See docs/contracts.md for the fields.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl, write_jsonl

SPLITS = ("train", "extra", "val", "test")
RELATION_TYPES = ("region", "direction", "distance")
PHRASE_KINDS = ("object", "group", "abstract", "pronoun", "vague", "miss")

Span = tuple[int, int]
Box = tuple[float, float, float, float]


@dataclass
class SceneObject:
    """One object in a scene. `box` is x1,y1,x2,y2 in pixels of the visible part, x2 and y2 exclusive."""

    id: int
    label: str
    attributes: list[str]
    box: Box
    area: int  # visible pixels
    occlusion: float = 0.0  # hidden fraction, 0..1
    text: str = ""  # words written on it


@dataclass
class Scene:
    """One image and its annotation. `objects` is empty for real corpora."""

    image_id: str
    path: str
    width: int
    height: int
    split: str
    objects: list[SceneObject] = field(default_factory=list)
    category: str = ""

    def object(self, object_id: int) -> SceneObject:
        for item in self.objects:
            if item.id == object_id:
                return item
        raise AtlasError(f"scene {self.image_id}: object {object_id} does not exist; write the layer again")


@dataclass
class Phrase:
    """A noun phrase by character offsets, and the scene objects it means (none for 'abstract' or 'miss')."""

    start: int
    end: int
    objects: list[int]
    kind: str = "object"


@dataclass
class Relation:
    """A target-relation-landmark triple by character spans (Kolomiyets et al. 2013)."""

    target: Span
    relation: Span
    landmark: Span
    type: str
    target_objects: list[int] = field(default_factory=list)
    landmark_objects: list[int] = field(default_factory=list)


@dataclass
class Example:
    """One image-text pair."""

    id: str
    image_id: str
    text: str
    phrases: list[Phrase] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Corpus:
    """Scenes by image id and the examples of one text layer, both in file order."""

    root: Path
    scenes: dict[str, Scene]
    examples: list[Example]
    name: str = ""

    def split(self, name: str) -> list[Example]:
        """Examples whose image belongs to the split. Several splits are joined by '+', e.g. 'train+extra'."""
        wanted = name.split("+")
        for part in wanted:
            if part not in SPLITS:
                raise AtlasError(f"split '{part}' is unknown; known: {', '.join(SPLITS)}")
        return [e for e in self.examples if self.scenes[e.image_id].split in wanted]

    def some(self, split: str, answered: bool = False) -> list[Example]:
        """`split`, at least one example; with `answered`, each with answers. Else raises AtlasError."""
        found = self.split(split)
        if not found:
            raise AtlasError(f"{self.root}: split '{split}' has no example; check data and split names")
        for example in found:
            if answered and not example.answers:
                raise AtlasError(f"{self.root}: question '{example.id}': answers: none; add ten")
        return found

    def scene(self, example: Example) -> Scene:
        return self.scenes[example.image_id]

    def image_path(self, image_id: str) -> Path:
        return self.root / self.scenes[image_id].path


def write_scenes(path: str | Path, scenes: Iterable[Scene]) -> None:
    write_jsonl(path, (dataclasses.asdict(s) for s in scenes))


def write_examples(path: str | Path, examples: Iterable[Example]) -> None:
    write_jsonl(path, (dataclasses.asdict(e) for e in examples))


def read_corpus(root: str | Path, layer: str = "descriptions", name: str = "") -> Corpus:
    """Read and validate `scenes.jsonl` and one text layer: `<layer>.jsonl` under `root`, or the path of a
    `.jsonl` elsewhere.

    Raises AtlasError for a missing file, a field that is missing or of the wrong type, a duplicate id, an
    image id without a scene, a text without words, or a span outside its text.
    """
    root = Path(root)
    scenes_path, layer_path = root / "scenes.jsonl", _layer_path(root, layer)
    scenes: dict[str, Scene] = {}
    for line, row in read_jsonl(scenes_path):
        scene = _build(Scene, row, f"{scenes_path}: line {line}")
        scene.objects = [
            _build(SceneObject, o, f"{scenes_path}: line {line}: objects") for o in scene.objects
        ]
        if scene.image_id in scenes:
            raise AtlasError(
                f"{scenes_path}: line {line}: image_id '{scene.image_id}' occurs twice; keep one of the rows"
            )
        check_split(scene.split, f"{scenes_path}: line {line}")
        check_place(scene.path, f"{scenes_path}: line {line}: path")
        scenes[scene.image_id] = scene
    rows = read_jsonl(layer_path, may_be_empty=True)  # a world without texts is a corpus, too
    examples = [_example(row, f"{layer_path}: line {line}") for line, row in rows]
    check_examples(examples, scenes, str(layer_path))
    return Corpus(root, scenes, examples, name or root.name)


def _layer_path(root: Path, layer: str) -> Path:
    return Path(layer) if layer.endswith(".jsonl") else root / f"{layer}.jsonl"


def check_split(split: str, where: str) -> None:
    if split not in SPLITS:
        raise AtlasError(f"{where}: split: '{split}' is not one of {', '.join(SPLITS)}; correct the field")


def check_place(path: str, where: str) -> None:
    """Raise AtlasError for an image path that leads out of the folder of images."""
    place = PurePosixPath(path)
    if place.is_absolute() or ".." in place.parts:
        raise AtlasError(f"{where}: '{path}' is outside the folder of images; give a path below it")


def check_examples(examples: Iterable[Example], scenes: dict[str, Scene], where: str) -> None:
    """The checks that all readers share."""
    seen: set[str] = set()
    for example in examples:
        at = f"{where}: example '{example.id}'"
        if example.id in seen:
            raise AtlasError(f"{at}: id occurs twice; ids must be unique, rename or remove one")
        seen.add(example.id)
        if example.image_id not in scenes:
            raise AtlasError(f"{at}: image_id: no scene '{example.image_id}'; add it or remove the example")
        check_place(scenes[example.image_id].path, f"{at}: image")
        if not any(c.isalnum() for c in example.text):
            raise AtlasError(f"{at}: text: has no words; give a text or remove the row")
        spans: list[Span] = [(p.start, p.end) for p in example.phrases]
        spans += [s for r in example.relations for s in (r.target, r.relation, r.landmark)]
        for start, end in spans:
            if not 0 <= start < end <= len(example.text):
                raise AtlasError(
                    f"{at}: span [{start},{end}] is outside its text of {len(example.text)} characters;"
                    " write the layer again"
                )


def _example(row: Any, where: str) -> Example:
    example = _build(Example, row, where)
    example.phrases = [_build(Phrase, p, f"{where}: phrases") for p in example.phrases]
    relations = [_build(Relation, r, f"{where}: relations") for r in example.relations]
    for relation in relations:
        relation.target = (relation.target[0], relation.target[1])
        relation.relation = (relation.relation[0], relation.relation[1])
        relation.landmark = (relation.landmark[0], relation.landmark[1])
        if relation.type not in RELATION_TYPES:
            raise AtlasError(f"{where}: type: '{relation.type}' is not one of {', '.join(RELATION_TYPES)}")
    example.relations = relations
    return example


def _build(cls: Any, row: Any, where: str) -> Any:
    if not isinstance(row, dict):
        raise AtlasError(f"{where}: not an object with fields; write the file again")
    known, needed = _fields(cls)
    if row.keys() <= known and needed <= row.keys():
        for name, hint in _types(cls):
            if name in row and not _fits(row[name], hint):
                shown = _shown(row[name])
                raise AtlasError(f"{where}: {name}: is {shown}, not {_TYPES[hint]}; correct the row")
        return cls(**row)
    missing, unknown = sorted(needed - row.keys()), sorted(row.keys() - known)
    if missing:
        raise AtlasError(f"{where}: {missing[0]}: field is missing; add it or write the file again")
    raise AtlasError(f"{where}: {unknown[0]}: unknown field; remove it or write the file again")


# Accepted values by type annotation; dataclasses are built from objects afterwards.
_TYPES: dict[str, str] = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "list[str]": "a list of texts",
    "list[int]": "a list of whole numbers",
    "Box": "four numbers",
    "Span": "two whole numbers",
    "list[SceneObject]": "a list",
    "list[Phrase]": "a list",
    "list[Relation]": "a list",
    "dict[str, Any]": "an object with fields",
}


@functools.cache
def _types(cls: Any) -> tuple[tuple[str, str], ...]:
    return tuple((f.name, str(f.type)) for f in dataclasses.fields(cls))


def _fits(value: Any, hint: str) -> bool:
    if hint == "str":
        return isinstance(value, str)
    if hint == "int":
        return type(value) is int
    if hint == "float":
        return type(value) in (int, float) and -1e300 < value < 1e300  # neither NaN nor infinite
    if hint == "dict[str, Any]":
        return isinstance(value, dict)
    if not isinstance(value, list | tuple):
        return False
    if hint in ("Box", "Span"):
        kind = "float" if hint == "Box" else "int"
        return len(value) == (4 if hint == "Box" else 2) and all(_fits(v, kind) for v in value)
    inner = hint.removeprefix("list[").removesuffix("]")
    return inner not in ("str", "int") or all(_fits(v, inner) for v in value)


def _shown(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


@functools.cache
def _fields(cls: Any) -> tuple[frozenset[str], frozenset[str]]:
    """Names of all fields, and of the required ones."""
    fields, none = dataclasses.fields(cls), dataclasses.MISSING
    needed = (f.name for f in fields if f.default is none and f.default_factory is none)
    return frozenset(f.name for f in fields), frozenset(needed)


def with_other_images(examples: Sequence[Example]) -> list[Example]:
    """Each example with the image of the next example about another one (cyclic); text and answers stay.

    A model's score on these is due to the text alone. Raises AtlasError if all examples have the same image.
    """
    images = [e.image_id for e in examples]
    if len(set(images)) < 2:
        raise AtlasError("other images: all examples have the same image; use at least two images")
    # Backwards: an example's next other image is its successor's own, or the one found for its successor.
    found: list[Example] = []
    following = next(image for image in images if image != images[-1])
    for here, after in zip(reversed(examples), reversed([*images[1:], following])):
        following = after if after != here.image_id else following
        found.append(replace(here, image_id=following))
    return found[::-1]
