"""TextVQA (Singh et al. 2019): questions in the published JSON layout, and its Rosetta words as an OCR file.

Files: TextVQA_0.5.1_{train,val}.json ({"data": [{question_id, question, image_id, image_width, image_height,
answers}]}), train_val_images/train_images/<image_id>.jpg, and TextVQA_Rosetta_OCR_v0.2_{train,val}.json
({"data": [{image_id, ocr_info: [{word, bounding_box: {top_left_x, top_left_y, width, height}}]}]}, the box
relative to the image's size).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Corpus, Example, Scene, check_split
from attention_atlas.data.images import read_rgb, used_corpus
from attention_atlas.data.json_rows import (
    answer,
    identifier,
    items,
    number,
    read_published,
    real,
    row_list,
    text,
    value,
)
from attention_atlas.data.ocr_file import OcrImage, OcrToken, look_of, write_ocr
from attention_atlas.errors import AtlasError, ConfigError

IMAGE = "{image_id}.jpg"


def read_textvqa(
    parts: Mapping[str, Mapping[str, Any]],
    images: str | Path,
    name: str = "textvqa",
    subset: int | None = None,
    test_share: float = 0.5,
    seed: int = 0,
    file: str = IMAGE,
    require_images: bool = True,
) -> Corpus:
    """Read the corpus.

    parts: {name: {questions: path, split}}. The answers to TextVQA's test questions are not public, so a
    fraction `test_share` of the images of a part with split `val` becomes the split `test`: those whose ids
    have the lowest SHA-256 digests, independently of the seed. subset: maximum number of questions per split,
    drawn with `seed` (None: all). file: an image's path below `images`.
    Raises AtlasError for a missing file, field or image, or a question id that occurs twice.
    """
    if subset is not None and subset < 1:
        raise ConfigError(f"read_textvqa: subset: must be at least 1 or null, not {subset}")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for part, files in parts.items():
        split = str(files.get("split", "train"))
        check_split(split, f"read_textvqa: parts: {part}")
        if not files.get("questions"):
            raise ConfigError(f"read_textvqa: parts: {part}: questions: is missing; give the file's path")
        path = Path(files["questions"])
        rows = [_question(row, f"{path}: data: {i}") for i, row in enumerate(_data(path))]
        held: set[str] = set()
        if split == "val":
            ids = sorted({example.image_id for example, _ in rows}, key=_digest)
            held = set(ids[: round(test_share * len(ids))])
        for example, size in rows:
            where = "test" if example.image_id in held else split
            known = scenes.get(example.image_id)
            if known is not None and known.split != where:
                raise AtlasError(
                    f"{path}: image_id: '{example.image_id}' is in two parts; give each image to one"
                )
            scenes[example.image_id] = Scene(
                example.image_id, file.format(image_id=example.image_id), *size, where
            )
            examples.append(example)
    if subset is not None:
        examples = _drawn(examples, scenes, subset, seed)
    # The sizes in the file are those of the original images; some have been rotated since.
    return used_corpus(images, scenes, examples, name, parts, require_images)


def _digest(image_id: str) -> str:
    return hashlib.sha256(image_id.encode()).hexdigest()


def _question(row: Any, where: str) -> tuple[Example, tuple[int, int]]:
    size = number(row, "image_width", where), number(row, "image_height", where)
    people = items(row, "answers", where)
    answers = [answer({"answers": a}, "answers", where) for a in people]
    question, image_id = identifier(row, "question_id", where), identifier(row, "image_id", where)
    return Example(question, image_id, text(row, "question", where), answers=answers), size


def _drawn(examples: Sequence[Example], scenes: Mapping[str, Scene], subset: int, seed: int) -> list[Example]:
    """At most `subset` examples per split, in file order."""
    kept: set[int] = set()
    count: dict[str, int] = {}
    for i in np.random.default_rng([seed, 2]).permutation(len(examples)).tolist():
        split = scenes[examples[i].image_id].split
        if count.get(split, 0) < subset:
            count[split] = count.get(split, 0) + 1
            kept.add(i)
    return [e for i, e in enumerate(examples) if i in kept]


@dataclass
class RosettaOcr:
    """Writes the words published by TextVQA's authors. files: the JSON files. looks: read the colours of the
    words from the images. longest: maximum number of words per image."""

    files: Sequence[str]
    looks: bool = True
    longest: int = 50
    inputs: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.inputs = list(self.files)

    def extract(self, corpus: Corpus, out: Path, work: Path) -> None:
        """Write the OCR file of the corpus. Raises AtlasError for an image missing from the files."""
        found: dict[str, list[Any]] = {}
        for name in self.files:
            for i, row in enumerate(_data(Path(name))):
                where = f"{name}: data: {i}"
                image_id, words = identifier(row, "image_id", where), value(row, "ocr_info", where)
                if not isinstance(words, list):  # [] for an image without words
                    raise AtlasError(f"{where}: ocr_info: is not a list; download the file again")
                if found.setdefault(image_id, words) is not words:
                    raise AtlasError(f"{where}: image_id: '{image_id}' occurs twice; keep one of the rows")
        images = []
        for image_id in sorted({e.image_id for e in corpus.examples}):
            if image_id not in found:
                raise AtlasError(f"{self.files[0]}: image_id: no image '{image_id}'; add its file")
            images.append(self._image(corpus, image_id, found[image_id]))
        write_ocr(out, images)

    def _image(self, corpus: Corpus, image_id: str, rows: Sequence[Any]) -> OcrImage:
        scene = corpus.scenes[image_id]
        pixels = None
        if self.looks:
            pixels = np.asarray(read_rgb(corpus.image_path(image_id)))
        tokens = []
        for place_in_list, row in enumerate(rows):
            where = f"{', '.join(self.files)}: image '{image_id}': ocr_info"
            words, box = text(row, "word", where).split(), value(row, "bounding_box", where)
            x, y = real(box, "top_left_x", where) * scene.width, real(box, "top_left_y", where) * scene.height
            wide, high = real(box, "width", where) * scene.width, real(box, "height", where) * scene.height
            x1, y1 = min(max(x, 0.0), scene.width - 1.0), min(max(y, 0.0), scene.height - 1.0)
            x2, y2 = min(x + wide, float(scene.width)), min(y + high, float(scene.height))
            place = (round(x1, 1), round(y1, 1), round(max(x2, x1 + 1), 1), round(max(y2, y1 + 1), 1))
            look = look_of(pixels, place) if pixels is not None else []
            tokens += [OcrToken(word, place, 1.0, look, place_in_list) for word in words]
        return OcrImage(image_id, (scene.width, scene.height), tokens[: self.longest], "Rosetta")


def _data(path: Path) -> list[Any]:
    return row_list(read_published(path), "data", path, "a file of TextVQA")
