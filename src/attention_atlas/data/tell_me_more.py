"""Tell-Me-More (Ilinykh, Zarrieß and Schlangen 2019): five sentences on each of 5,702 ADE20K rooms.

`sequences.csv` is tab-separated with literal quotation marks; `splits.json` maps an
image_id to train (3,527), extra (1,293), val (441) or test (441). The images are ADE20K's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.csv_rows import csv_rows
from attention_atlas.data.images import image_size
from attention_atlas.data.joining import join_sentences
from attention_atlas.data.json_rows import read_published
from attention_atlas.errors import AtlasError

COLUMNS = ("seq_id", "image_id", "image_path", "image_cat", "image_subcat", "d1", "d2", "d3", "d4", "d5")
SENTENCES = COLUMNS[5:]


def read_tell_me_more(
    sequences: str | Path,
    splits: str | Path,
    images: str | Path,
    name: str = "tell_me_more",
    keep_splits: Sequence[str] = ("train", "extra", "val", "test"),
    final_punctuation: bool = True,
    require_images: bool = True,
    limit: int | None = None,
) -> Corpus:
    """Read the corpus. The paragraph is d1 to d5 joined; the sentences are in `extra["sentences"]`.

    `images` is the folder with ADE20K's `training/` and `validation/`; with `require_images` each image of
    `keep_splits` must exist and sets width and height, else both are 0. `limit` is the maximum number per
    split, in file order. Raises AtlasError for a missing file or column, an image without a split, an unknown
    split, a duplicate id, or a text without words.
    """
    sequences, splits, images = Path(sequences), Path(splits), Path(images)
    split_of = _read_splits(splits)
    for split in keep_splits:
        check_split(split, "keep_splits")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    kept = dict.fromkeys(keep_splits, 0)
    for line, row in _read_rows(sequences):
        where = f"{sequences}: line {line}"
        image_id = row["image_id"]
        if image_id not in split_of:
            raise AtlasError(
                f"{where}: image_id: '{image_id}' has no split in {splits.name}; add it or drop the row"
            )
        split = split_of[image_id]
        if split not in kept or (limit is not None and kept[split] >= limit):
            continue
        kept[split] += 1
        if image_id in scenes:
            raise AtlasError(f"{where}: image_id: '{image_id}' occurs twice; keep one of the rows")
        width, height = image_size(images / row["image_path"]) if require_images else (0, 0)
        category = " ".join(p for p in (row["image_cat"], row["image_subcat"]) if p)
        scenes[image_id] = Scene(image_id, row["image_path"], width, height, split, [], category)
        sentences = [row[d] for d in SENTENCES if row[d].strip()]
        examples.append(
            Example(
                id=f"tmm{row['seq_id']}",
                image_id=image_id,
                text=join_sentences(sentences, final_punctuation),
                extra={"sentences": sentences},
            )
        )
    check_examples(examples, scenes, str(sequences))
    return Corpus(images, scenes, examples, name)


def _read_splits(path: Path) -> dict[str, str]:
    table = read_published(path)
    if not isinstance(table, dict):
        raise AtlasError(f"{path}: not a table of image ids; download the file again")
    for image_id, split in table.items():
        check_split(split, f"{path}: '{image_id}'")
    return table


def _read_rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    if not path.exists():
        raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
    header, rows = csv_rows(path, delimiter="\t", quoted=False)
    for column in COLUMNS:
        if column not in header:
            raise AtlasError(
                f"{path}: {column}: column is missing (the file is tab-separated despite its name); "
                "download it again"
            )
    if not rows:
        raise AtlasError(f"{path}: has no rows; download it again")
    return rows
