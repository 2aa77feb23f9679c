"""A user's own data: a folder of images and a CSV of texts."""

from __future__ import annotations

import posixpath
from pathlib import Path

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.data.images import image_size
from attention_atlas.errors import AtlasError

REQUIRED = ("image", "text")


def read_folder(images: str | Path, texts: str | Path, name: str = "folder", split: str = "test") -> Corpus:
    """Read the images below `images` and the CSV file `texts`, one row per image and text.

    Columns: `image` (path below `images`) and `text`; optional `id` (default row0, row1, ...), `split`
    (train, extra, val or test; default: `split`), `category`; other columns go to `Example.extra`. An image
    may have several rows, all in the same split; './a.jpg' and 'a.jpg' are the same image. The image id is
    the path below `images` with '--' for '/'. Raises AtlasError for a missing file or image, an invalid
    CSV (see `csv_rows`), a duplicate id, a text without words, or an image in two splits.
    """
    images, texts = Path(images), Path(texts)
    check_split(split, "data.split")
    if not images.is_dir():
        raise AtlasError(f"{images}: no such folder; set images to the folder of your images")
    if not texts.exists():
        raise AtlasError(f"{texts}: no such file; set texts to a CSV file with the columns image,text")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    columns, rows = csv_rows(texts)
    for column in REQUIRED:
        if column not in columns:
            raise AtlasError(f"{texts}: {column}: column is missing; the first line must name image,text")
    for number, (line, row) in enumerate(rows):
        where = f"{texts}: line {line}"
        if not row["image"].strip():
            raise AtlasError(f"{where}: image: is empty; give the path of an image below {images}")
        image = posixpath.normpath(row["image"].strip().replace("\\", "/"))  # ./a.jpg is a.jpg
        if image.startswith("/") or image.split("/")[0] == "..":
            raise AtlasError(f"{where}: image: '{image}' is not below {images}; give a path below it")
        image_id = image.replace("/", "--")
        own_split = (row.get("split") or "").strip() or split
        check_split(own_split, where)
        known = scenes.get(image_id)
        if known is None:
            try:
                width, height = image_size(images / image)
            except AtlasError as error:
                raise AtlasError(f"{where}: image: {error}") from None
            category = (row.get("category") or "").strip()
            scenes[image_id] = Scene(image_id, image, width, height, own_split, [], category)
        elif known.path != image:
            raise AtlasError(
                f"{texts}: image: '{image}' and '{known.path}' have the same id '{image_id}'; "
                "rename one of the files"
            )
        elif known.split != own_split:
            raise AtlasError(f"{where}: split: '{image}' is in {known.split} and {own_split}; choose one")
        extra = {k: v for k, v in row.items() if k not in ("image", "text", "id", "split", "category")}
        examples.append(
            Example(
                id=(row.get("id") or "").strip() or f"row{number}",
                image_id=image_id,
                text=row["text"],
                extra=extra,
            )
        )
    if not examples:
        raise AtlasError(f"{texts}: has no rows; add one per image and text")
    check_examples(examples, scenes, str(texts))
    return Corpus(images, scenes, examples, name)
