"""Flickr30k captions (Young et al. 2014) with Karpathy's splits (`dataset_flickr30k.json`): five one-sentence
captions per photograph; 29,000 images to train, 1,014 to validate, 1,000 to test."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_atlas.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.datasets.pictures import picture_size
from attention_atlas.errors import AtlasError

SPLITS = ("train", "val", "test")
TEXTS = ("tokens", "raw")


def read_flickr30k(
    karpathy: str | Path,
    images: str | Path,
    name: str = "flickr30k",
    keep_splits: Sequence[str] = SPLITS,
    text: str = "raw",
    require_images: bool = True,
    limit: int | None = None,
) -> Corpus:
    """Read the corpus. `image_id` is the file's name without its ending, as in bottom-up features.

    karpathy: dataset_flickr30k.json. images: the folder of the photographs; with `require_images` each one of
    `keep_splits` must exist and gives width and height, else both are 0. text: raw or tokens (lower-case,
    without punctuation, joined by spaces). limit: the first so many images of each split. Raises AtlasError
    for a missing file or field, an unknown split, a duplicated id, a text without words.
    """
    karpathy, images = Path(karpathy), Path(images)
    if text not in TEXTS:
        raise AtlasError(f"conf/data: text: '{text}' is not one of {', '.join(TEXTS)}; correct the YAML")
    for split in keep_splits:
        check_split(split, "keep_splits")
    kept = dict.fromkeys(keep_splits, 0)
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for number, row in enumerate(_rows(karpathy), start=1):
        where = f"{karpathy}: image {number}"
        split = _field(row, "split", where)
        if split not in SPLITS:
            raise AtlasError(f"{where}: split: '{split}' is not one of {', '.join(SPLITS)}; correct the file")
        if split not in kept or (limit is not None and kept[split] >= limit):
            continue
        kept[split] += 1
        file = str(_field(row, "filename", where))
        image_id = Path(file).stem
        if image_id in scenes:
            raise AtlasError(f"{where}: filename: '{file}' occurs twice; download the file anew")
        width, height = picture_size(images / file) if require_images else (0, 0)
        scenes[image_id] = Scene(image_id, file, width, height, split)
        for sentence in _field(row, "sentences", where):
            value = _field(sentence, text, f"{where}: sentences")
            said = " ".join(value) if isinstance(value, list) else str(value).strip()
            examples.append(Example(f"flickr{_field(sentence, 'sentid', where)}", image_id, said))
    check_examples(examples, scenes, str(karpathy))
    return Corpus(images, scenes, examples, name)


def _rows(path: Path) -> list[Any]:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; give Karpathy's dataset_flickr30k.json (docs/alignments.md)")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None
    rows = table.get("images") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: images: no list of images; give Karpathy's dataset_flickr30k.json")
    return rows


def _field(row: Any, name: str, where: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise AtlasError(f"{where}: {name}: field is missing; give Karpathy's dataset_flickr30k.json")
    return row[name]
