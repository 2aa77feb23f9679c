"""Karpathy's JSON of captions and splits (`dataset_coco.json`, `dataset_flickr30k.json`): `images`, each with
`split`, `filename` and `sentences` (`sentid`, `raw`, `tokens`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attention_atlas.data import json_rows
from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.images import image_size
from attention_atlas.errors import AtlasError

TEXTS = ("tokens", "raw")


class Row:
    """One image or sentence of the file. `text` and `id` raise AtlasError for a field that is missing, null
    or of another type."""

    def __init__(self, values: Any, where: str) -> None:
        self.values, self.where = values, where

    def text(self, name: str) -> str:
        return json_rows.text(self.values, name, self.where)

    def id(self, name: str) -> str:
        return json_rows.identifier(self.values, name, self.where)

    def __getitem__(self, name: str) -> Any:
        return json_rows.value(self.values, name, self.where)


def read_karpathy(
    path: Path,
    images: Path,
    name: str,
    *,
    file: str,
    prefix: str,
    splits: Mapping[str, str],
    image: Callable[[Row], tuple[str, str, str]],
    keep_splits: Sequence[str],
    text: str,
    require_images: bool,
    limit: int | Mapping[str, int] | None,
) -> Corpus:
    """The corpus of `path`, Karpathy's `file`.

    prefix: prefix of the examples' ids, before the sentence's number. splits: {split in the file: our split}.
    image: function from an image to its id, the field of the id, and its path below `images`; with
    `require_images` each image of `keep_splits` must exist and sets width and height, else both are 0.
    text: tokens (lower-case, without punctuation, joined by spaces) or raw. limit: maximum number of images
    per split, in file order; one number or {split: number}.
    Raises AtlasError for a missing file or field, an unknown split, a duplicate id, or a text without words.
    """
    if text not in TEXTS:
        raise AtlasError(f"read_karpathy: text: '{text}' is not one of {', '.join(TEXTS)}")
    for split in keep_splits:
        check_split(split, "keep_splits")
    most = dict(limit) if isinstance(limit, Mapping) else dict.fromkeys(keep_splits, limit)
    for split in most:
        check_split(split, "read_karpathy: limit")
    kept = dict.fromkeys(keep_splits, 0)
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for number, values in enumerate(_images(path, file), start=1):
        row = Row(values, f"{path}: image {number}")
        published = row.text("split")
        if published not in splits:
            raise AtlasError(
                f"{row.where}: split: '{published}' is not one of {', '.join(splits)}; correct the file"
            )
        split = splits[published]
        if split not in kept or ((last := most.get(split)) is not None and kept[split] >= last):
            continue
        kept[split] += 1
        image_id, field, place = image(row)
        if image_id in scenes:
            raise AtlasError(f"{row.where}: {field}: '{row[field]}' occurs twice; download the file again")
        width, height = image_size(images / place) if require_images else (0, 0)
        scenes[image_id] = Scene(image_id, place, width, height, split)
        for i, values in enumerate(json_rows.items(row.values, "sentences", row.where)):
            sentence = Row(values, f"{row.where}: sentences: {i}")
            if text == "tokens":
                words = json_rows.items(sentence.values, text, sentence.where)
                caption = " ".join(Row({text: word}, sentence.where).text(text) for word in words)
            else:
                caption = sentence.text(text).strip()
            examples.append(Example(f"{prefix}{sentence.id('sentid')}", image_id, caption))
    check_examples(examples, scenes, str(path))
    return Corpus(images, scenes, examples, name)


def _images(path: Path, file: str) -> list[Any]:
    table = json_rows.read_published(path, f"see 'make paper-check' for the source of Karpathy's {file}")
    return json_rows.row_list(table, "images", path, f"Karpathy's {file}")
