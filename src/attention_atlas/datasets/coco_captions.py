"""COCO captions with Karpathy's splits (`dataset_coco.json`): about five one-sentence captions per
photograph.

`restval`, the part of COCO's validation set that Karpathy gives to training, is the split `extra`; so
train+extra is what captioning papers train on (113,287 images), val and test have 5,000 images each.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attention_atlas.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.datasets.pictures import picture_size
from attention_atlas.errors import AtlasError

SPLITS = {"train": "train", "restval": "extra", "val": "val", "test": "test"}
TEXTS = ("tokens", "raw")


def read_coco_captions(
    karpathy: str | Path,
    images: str | Path,
    name: str = "coco_captions",
    keep_splits: Sequence[str] = ("train", "extra", "val", "test"),
    text: str = "tokens",
    require_images: bool = True,
    limit: int | None = None,
) -> Corpus:
    """Read the corpus. `image_id` is COCO's number, which bottom-up features have too.

    karpathy: dataset_coco.json. images: the folder that holds train2014/ and val2014/; with
    `require_images` each picture of `keep_splits` must exist and gives width and height, else both are 0.
    text: tokens (lower-case, without punctuation, joined by spaces: what captioners learn) or raw. limit:
    the first so many images of each split. Raises AtlasError for a missing file or field, an unknown split,
    a duplicated id, a text without words.
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
            raise AtlasError(
                f"{where}: split: '{split}' is not one of {', '.join(SPLITS)}; download the file anew"
            )
        split = SPLITS[split]
        if split not in kept or (limit is not None and kept[split] >= limit):
            continue
        kept[split] += 1
        image_id = str(_field(row, "cocoid", where))
        if image_id in scenes:
            raise AtlasError(f"{where}: cocoid: '{image_id}' occurs twice; download the file anew")
        path = f"{_field(row, 'filepath', where)}/{_field(row, 'filename', where)}"
        width, height = picture_size(images / path) if require_images else (0, 0)
        scenes[image_id] = Scene(image_id, path, width, height, split)
        for sentence in _field(row, "sentences", where):
            value = _field(sentence, text, f"{where}: sentences")
            said = " ".join(value) if isinstance(value, list) else str(value).strip()
            examples.append(Example(f"coco{_field(sentence, 'sentid', where)}", image_id, said))
    check_examples(examples, scenes, str(karpathy))
    return Corpus(images, scenes, examples, name)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None
    rows = table.get("images") if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: images: no list of images; give Karpathy's dataset_coco.json")
    return rows


def _field(row: Any, name: str, where: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise AtlasError(f"{where}: {name}: field is missing; give Karpathy's dataset_coco.json")
    return row[name]
