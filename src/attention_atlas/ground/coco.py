"""Phrases with boxes from COCO's instances and RefCOCO's referring expressions.

COCO (Lin et al. 2014): the published instances_*.json. RefCOCO, RefCOCO+, RefCOCOg (Kazemzadeh et al. 2014,
Yu et al. 2016): their instances.json, and the references as JSON. The published references are a pickle,
which can run code when it is opened; this project never opens one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import check_place
from attention_atlas.data.json_rows import identifier, items, number, read_published, reals, row_list, text
from attention_atlas.data.phrase_boxes import Box, Example
from attention_atlas.errors import AtlasError, ConfigError, did_you_mean

INSTANCES = "COCO's instances_*.json"
REFS = "a JSON list of references"
SOURCE = "download it, or correct the path"


def read_coco(path: str | Path, images: str | Path) -> list[Example]:
    """One example for each image and category in it: the category's name, and the boxes of all its
    instances. Left out if one of them is a crowd, which has no individual box, or has an empty box.

    images: the folder of the images. Raises AtlasError for a missing file, field or category.
    """
    path, folder = Path(path), _folder(images)
    table = read_published(path, SOURCE)
    names = _names(table, path)
    categories = {
        identifier(row, "id", f"{path}: categories"): text(row, "name", f"{path}: categories")
        for row in row_list(table, "categories", path, INSTANCES)
    }
    boxes: dict[tuple[str, str], list[Box]] = {}
    where: dict[tuple[str, str], list[str]] = {}
    crowds = set()
    for row in row_list(table, "annotations", path, INSTANCES):
        place, image, box = _annotation(row, path, names)
        category = identifier(row, "category_id", place)
        if category not in categories:
            raise AtlasError(
                f"{place}: category_id: {category} is not among the categories; download it again"
            )
        key = image, category
        if row.get("iscrowd") or box[2] <= box[0] or box[3] <= box[1]:
            crowds.add(key)
        boxes.setdefault(key, []).append(box)
        where.setdefault(key, []).append(place)
    return [
        Example(folder / names[image], categories[category], tuple(found), tuple(where[image, category]))
        for (image, category), found in boxes.items()
        if (image, category) not in crowds
    ]


def read_refcoco(
    refs: str | Path, instances: str | Path, images: str | Path, split: str | None = None
) -> list[Example]:
    """One example for each sentence that refers to an object, with the object's box.

    refs: a JSON list of references with the fields of RefCOCO's: ref_id, ann_id, image_id, split, and
    sentences, each with `sent`. instances: RefCOCO's instances.json. split: only references of this split
    (val, testA, ...); None: all. Raises AtlasError for a pickle, a missing file or field, or an unknown
    annotation or split.
    """
    path, refs, folder = Path(instances), Path(refs), _folder(images)
    _no_pickle(refs)
    rows = read_published(refs, SOURCE)
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{refs}: is not a list of references; give {REFS}")
    table = read_published(path, SOURCE)
    names = _names(table, path)
    annotations = {
        identifier(row, "id", f"{path}: annotations"): row
        for row in row_list(table, "annotations", path, "RefCOCO's instances.json")
    }
    found, splits = [], set()
    for index, row in enumerate(rows):
        place = f"{refs}: entry {index}"
        splits.add(text(row, "split", place))
        if split not in (None, row["split"]):
            continue
        annotation = identifier(row, "ann_id", place)
        if annotation not in annotations:
            raise AtlasError(
                f"{place}: ann_id: {annotation} is not in {path}; give the instances of these references"
            )
        _, image, box = _annotation(annotations[annotation], path, names)
        for n, sentence in enumerate(items(row, "sentences", place)):
            at = f"{place}: sentence {n}"
            phrase = " ".join(text(sentence, "sent", at).split())
            found.append(Example(folder / names[image], phrase, (box,), (at,)))
    if not found:
        raise AtlasError(f"{refs}: split: no reference is in '{split}'{did_you_mean(str(split), splits)}")
    return found


def _annotation(row: Any, path: Path, names: dict[str, str]) -> tuple[str, str, Box]:
    """(where it is, image, box)."""
    place = f"{path}: annotation {identifier(row, 'id', f'{path}: annotations')}"
    x, y, w, h = reals(row, "bbox", place, 4)
    image = identifier(row, "image_id", place)
    if image not in names:
        raise AtlasError(f"{place}: image_id: {image} is not among the images; download it again")
    return place, image, (x, y, x + w, y + h)


def _names(table: Any, path: Path) -> dict[str, str]:
    rows = row_list(table, "images", path, INSTANCES)
    found = {str(number(r, "id", f"{path}: images")): text(r, "file_name", f"{path}: images") for r in rows}
    for image, name in found.items():
        check_place(name, f"{path}: image {image}: file_name")
    return found


def _folder(images: str | Path) -> Path:
    if not Path(images).is_dir():
        raise ConfigError(f"--images: {images}: no such folder; give the folder of the images")
    return Path(images)


def _no_pickle(path: Path) -> None:
    if path.is_file():
        with path.open("rb") as file:
            if path.suffix in (".p", ".pkl", ".pickle") or file.read(1) == b"\x80":
                raise ConfigError(
                    f"--refcoco: {path}: is a pickle, which can run code when it is opened; where you trust "
                    "it, convert it once: json.dump(pickle.load(open(path, 'rb')), open('refs.json', 'w'))"
                )
