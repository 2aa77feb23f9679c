"""COCO's annotated objects (Lin et al. 2014) in the published layout: instances_{train,val}2014.json."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from attention_atlas.data.corpus import SceneObject
from attention_atlas.data.json_rows import read_published
from attention_atlas.errors import AtlasError


def read_instances(paths: Iterable[str | Path]) -> dict[int, list[SceneObject]]:
    """{image number: its objects}, in file order.

    An object's label is its super-category (one of 12: person, vehicle, ...), its attribute the category.
    Boxes are x1, y1, x2, y2 in pixels. Raises AtlasError for a missing file or field.
    """
    found: dict[int, list[SceneObject]] = {}
    for path in map(Path, paths):
        table = read_published(path)
        try:
            categories = {
                int(row["id"]): (str(row["supercategory"]), str(row["name"])) for row in table["categories"]
            }
            for row in table["annotations"]:
                objects = found.setdefault(int(row["image_id"]), [])
                label, name = categories[int(row["category_id"])]
                x, y, width, height = (float(value) for value in row["bbox"])
                box = (x, y, x + width, y + height)
                objects.append(SceneObject(len(objects), label, [name], box, round(float(row["area"]))))
        except ValueError as error:
            raise AtlasError(f"{path}: not a file of instances ({error}); download it again") from None
        except (KeyError, TypeError, OverflowError) as error:
            raise AtlasError(
                f"{path}: {error} is missing or wrong; download COCO's instances again"
            ) from None
    return found
