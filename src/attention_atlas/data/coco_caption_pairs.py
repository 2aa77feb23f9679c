"""COCO captions (Chen et al. 2015) in the published layout: captions_val2014.json or _val2017.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.images import image_size
from attention_atlas.data.json_rows import identifier, number, read_published, row_list, text
from attention_atlas.errors import AtlasError

FILE = "COCO's captions file"


def read_coco_caption_pairs(
    annotations: str | Path,
    images: str | Path,
    name: str = "coco_val_captions",
    split: str = "val",
    limit: int | None = None,
    require_images: bool = True,
) -> Corpus:
    """Read image-caption pairs. images: the folder with the files that the annotations name. limit: keep only
    this many images, lowest numbers first. Raises AtlasError for a missing file, a field that is missing or
    null, a caption without its image, or a duplicate id."""
    path, folder = Path(annotations), Path(images)
    check_split(split, "read_coco_caption_pairs: split")
    table = read_published(path)
    rows: dict[int, Any] = {}
    for i, row in enumerate(row_list(table, "images", path, FILE)):
        image = number(row, "id", f"{path}: images: {i}")
        if image in rows:
            raise AtlasError(f"{path}: images: {i}: id: {image} occurs twice; download the file again")
        rows[image] = row
    kept = sorted(rows)[:limit]
    scenes: dict[str, Scene] = {}
    for image in kept:
        where = f"{path}: image {image}"
        file = text(rows[image], "file_name", where)
        if require_images:
            width, height = image_size(folder / file)
        else:
            width, height = (
                number(rows[image], side, where) if side in rows[image] else 0 for side in ("width", "height")
            )
        scenes[str(image)] = Scene(str(image), file, width, height, split)
    examples = []
    for i, row in enumerate(row_list(table, "annotations", path, FILE)):
        where = f"{path}: annotations: {i}"
        image = number(row, "image_id", where)
        if image not in rows:
            raise AtlasError(f"{where}: image_id: {image} is not among images; download the file again")
        if str(image) in scenes:
            caption = text(row, "caption", where).strip()
            examples.append(Example(f"coco{identifier(row, 'id', where)}", str(image), caption))
    check_examples(examples, scenes, str(path))
    return Corpus(folder, scenes, examples, name)
