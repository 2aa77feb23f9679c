"""COCO captions (Chen et al. 2015) in the published layout: captions_val2014.json or _val2017.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from attention_atlas.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.datasets.pictures import picture_size
from attention_atlas.errors import AtlasError


def read_coco_caption_pairs(
    annotations: str | Path,
    images: str | Path,
    name: str = "coco_val_captions",
    split: str = "val",
    limit: int | None = None,
    require_images: bool = True,
) -> Corpus:
    """Read image-caption pairs. images: the folder of the file names that the annotations give. limit: the
    first so many images by number. Raises AtlasError for a missing file or field, a caption without its
    image, a duplicated id."""
    path, folder = Path(annotations), Path(images)
    check_split(split, "conf/data: split")
    table = _json(path)
    rows = {int(_field(row, "id", path, "images")): row for row in _list(table, "images", path)}
    kept = sorted(rows)[:limit]
    scenes: dict[str, Scene] = {}
    for number in kept:
        file = str(_field(rows[number], "file_name", path, "images"))
        if require_images:
            width, height = picture_size(folder / file)
        else:
            width, height = int(rows[number].get("width", 0)), int(rows[number].get("height", 0))
        scenes[str(number)] = Scene(str(number), file, width, height, split)
    examples = []
    for row in _list(table, "annotations", path):
        image = int(_field(row, "image_id", path, "annotations"))
        if image not in rows:
            raise AtlasError(
                f"{path}: annotations: image_id: {image} is not among images; download the file anew"
            )
        if str(image) in scenes:
            number = _field(row, "id", path, "annotations")
            text = str(_field(row, "caption", path, "annotations")).strip()
            examples.append(Example(f"coco{number}", str(image), text))
    check_examples(examples, scenes, str(path))
    return Corpus(folder, scenes, examples, name)


def _json(path: Path) -> Any:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AtlasError(f"{path}: not JSON ({error}); download the file anew") from None


def _list(table: Any, name: str, path: Path) -> list[Any]:
    rows = table.get(name) if isinstance(table, dict) else None
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: {name}: is missing or empty; give COCO's captions file")
    return rows


def _field(row: Any, name: str, path: Path, where: str) -> Any:
    if not isinstance(row, dict) or name not in row:
        raise AtlasError(f"{path}: {where}: {name}: field is missing; give COCO's captions file")
    return row[name]
