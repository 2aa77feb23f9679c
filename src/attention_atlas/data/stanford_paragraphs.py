"""Stanford image paragraphs (Krause et al. 2017): one paragraph for each of 19,551 Visual Genome images.

Files: `paragraphs_v1.json`, a list of {"image_id": 2356347, "url": ".../VG_100K_2/2356347.jpg", "paragraph"};
`train_split.json` (14,575), `val_split.json` (2,487) and `test_split.json` (2,489), each a list of image ids;
Visual Genome's images in `VG_100K/` and `VG_100K_2/`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.images import image_size
from attention_atlas.data.json_rows import read_published
from attention_atlas.errors import AtlasError


def read_stanford_paragraphs(
    paragraphs: str | Path,
    splits: Mapping[str, str | Path],
    images: str | Path,
    name: str = "stanford_paragraphs",
    keep_splits: Sequence[str] = ("train", "val", "test"),
    require_images: bool = True,
    limit: int | None = None,
) -> Corpus:
    """Read the corpus. White space inside a paragraph becomes single spaces.

    An image's path below `images` is the last folder and the file name of its `url`. Keeps all paragraphs of
    an image. Omits images without a split (a few in the published file).

    Args:
        paragraphs: path of paragraphs_v1.json.
        splits: name of a split -> path of its JSON list of image ids.
        images: folder that holds VG_100K and VG_100K_2.
        keep_splits: the splits to read.
        require_images: each image must exist and sets width and height; else both are 0.
        limit: maximum number of images per split, in file order (None: all).

    Raises:
        AtlasError: a file or field is missing, an id is in two splits or has no paragraph, or a paragraph has
            no words.
    """
    paragraphs, images = Path(paragraphs), Path(images)
    for known in keep_splits:
        check_split(known, "keep_splits")
    split_of = _read_splits(splits)
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    described: set[str] = set()
    kept = dict.fromkeys(keep_splits, 0)
    counts: dict[str, int] = {}
    for number, row in enumerate(_read_list(paragraphs)):
        where = f"{paragraphs}: {number}"
        image_id, url, text = (_field(row, name_, where) for name_ in ("image_id", "url", "paragraph"))
        described.add(image_id)
        split = split_of.get(image_id)
        if split is None or split not in kept:
            continue
        if image_id not in scenes:
            if limit is not None and kept[split] >= limit:
                continue
            kept[split] += 1
            place = "/".join(urlsplit(url).path.split("/")[-2:]).lstrip("/")
            width, height = image_size(images / place) if require_images else (0, 0)
            scenes[image_id] = Scene(image_id, place, width, height, split)
        counts[image_id] = counts.get(image_id, 0) + 1
        suffix = f".{counts[image_id]}" if counts[image_id] > 1 else ""
        examples.append(Example(f"vg{image_id}{suffix}", image_id, " ".join(text.split())))
    for image_id, listed in split_of.items():
        if image_id not in described:
            raise AtlasError(
                f"{splits[listed]}: '{image_id}' has no paragraph in {paragraphs.name}; download both again"
            )
    check_examples(examples, scenes, str(paragraphs))
    return Corpus(images, scenes, examples, name)


def _read_splits(splits: Mapping[str, str | Path]) -> dict[str, str]:
    """Image id -> split."""
    split_of: dict[str, str] = {}
    for split, path in splits.items():
        check_split(split, "read_stanford_paragraphs: splits")
        for image_id in map(str, _read_list(Path(path))):
            if split_of.setdefault(image_id, split) != split:
                raise AtlasError(
                    f"{path}: '{image_id}' is in the split {split_of[image_id]} too; keep it in one split"
                )
    return split_of


def _read_list(path: Path) -> list[Any]:
    rows = read_published(path)
    if not isinstance(rows, list) or not rows:
        raise AtlasError(f"{path}: not a list; download the file again")
    return rows


def _field(row: Any, name: str, where: str) -> str:
    value = row.get(name) if isinstance(row, dict) else None
    if not isinstance(value, (str, int)) or isinstance(value, bool):
        raise AtlasError(f"{where}: {name}: field is missing or wrong; download the file again")
    return str(value)
