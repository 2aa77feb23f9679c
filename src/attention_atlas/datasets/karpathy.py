"""Karpathy's JSON of captions and splits (`dataset_coco.json`, `dataset_flickr30k.json`): `images`, each with
`split`, `filename` and `sentences` (`sentid`, `raw`, `tokens`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attention_atlas.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.datasets.pictures import picture_size
from attention_atlas.errors import AtlasError

TEXTS = ("tokens", "raw")


class Row:
    """One image of the file; `row["name"]` raises AtlasError for a field that is missing."""

    def __init__(self, values: Any, where: str, file: str) -> None:
        self.values, self.where, self.file = values, where, file

    def __getitem__(self, name: str) -> Any:
        if not isinstance(self.values, dict) or name not in self.values:
            raise AtlasError(f"{self.where}: {name}: field is missing; give Karpathy's {self.file}")
        return self.values[name]


def read_karpathy(
    path: Path,
    images: Path,
    name: str,
    *,
    file: str,
    prefix: str,
    splits: Mapping[str, str],
    picture: Callable[[Row], tuple[str, str, str]],
    keep_splits: Sequence[str],
    text: str,
    require_images: bool,
    limit: int | Mapping[str, int] | None,
) -> Corpus:
    """The corpus of `path`, Karpathy's `file`.

    prefix: of the examples' ids, before the sentence's number. splits: the file's names of splits and ours.
    picture: of an image its id, the field that holds it, and its path below `images`; with `require_images`
    each picture of `keep_splits` must exist and gives width and height, else both are 0. text: tokens
    (lower-case, without punctuation, joined by spaces) or raw. limit: how many images of each split, the
    first of the file; a number for all splits or one for each by name.
    Raises AtlasError for a missing file or field, an unknown split, a duplicated id, a text without words.
    """
    if text not in TEXTS:
        raise AtlasError(f"conf/data: text: '{text}' is not one of {', '.join(TEXTS)}; correct the YAML")
    for split in keep_splits:
        check_split(split, "keep_splits")
    most = dict(limit) if isinstance(limit, Mapping) else dict.fromkeys(keep_splits, limit)
    for split in most:
        check_split(split, "conf/data: limit")
    kept = dict.fromkeys(keep_splits, 0)
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for number, values in enumerate(_images(path, file), start=1):
        row = Row(values, f"{path}: image {number}", file)
        if row["split"] not in splits:
            known = ", ".join(splits)
            raise AtlasError(f"{row.where}: split: '{row['split']}' is not one of {known}; correct the file")
        split = splits[row["split"]]
        if split not in kept or ((last := most.get(split)) is not None and kept[split] >= last):
            continue
        kept[split] += 1
        image_id, field, place = picture(row)
        if image_id in scenes:
            raise AtlasError(f"{row.where}: {field}: '{row[field]}' occurs twice; download the file anew")
        width, height = picture_size(images / place) if require_images else (0, 0)
        scenes[image_id] = Scene(image_id, place, width, height, split)
        for values in row["sentences"]:
            sentence = Row(values, f"{row.where}: sentences", file)
            said = sentence[text]
            said = " ".join(said) if isinstance(said, list) else str(said).strip()
            examples.append(Example(f"{prefix}{sentence['sentid']}", image_id, said))
    check_examples(examples, scenes, str(path))
    return Corpus(images, scenes, examples, name)


def _images(path: Path, file: str) -> list[Any]:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; 'make paper-check' says where Karpathy's {file} comes from")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None
    rows = table.get("images") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: images: no list of images; give Karpathy's {file}")
    return rows
