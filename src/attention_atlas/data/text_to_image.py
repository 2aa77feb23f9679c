"""CUB-200-2011 and COCO as prepared for text-to-image models (Reed et al. 2016; Zhang et al. 2017; Xu et al.,
AttnGAN, CVPR 2018): `filenames.pickle` per split, one text file of captions per image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import SPLITS, Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.cub_boxes import crop_square, read_boxes
from attention_atlas.data.images import image_size
from attention_atlas.data.name_list import read_names
from attention_atlas.errors import AtlasError, ConfigError


def read_text_to_image(
    images: str | Path,
    texts: str | Path,
    names: Mapping[str, str | Path],
    name: str,
    boxes: str | Path | None = None,
    ending: str = ".jpg",
    require_images: bool = True,
    val_share: float = 0.0,
    seed: int = 0,
    captions: int | None = 10,
    limit: int | None = None,
) -> Corpus:
    """Read the corpus. A listed name is the path, without suffix, of an image below `images` and of its
    captions below `texts`; `image_id` is its last part.

    names: {split: list of names (filenames.pickle or a .txt)}. Without a list for val, a fraction `val_share`
    of the training images, drawn with `seed`, becomes val. captions: maximum number per image, in file
    order (AttnGAN uses 10 for CUB, 5 for COCO; None: all). boxes: the folder of CUB's images.txt and
    bounding_boxes.txt, which sets `Example.extra["crop"]` to AttnGAN's square around the bird. A folder in
    the name (CUB's classes) is the category. limit: maximum number of images per split. With
    `require_images` each image must exist and sets width and height, else both are 0.
    Raises AtlasError for a missing file, an image without captions or box, or an id that occurs twice;
    ConfigError for a number out of range.
    """
    images, texts = Path(images), Path(texts)
    if not 0 <= val_share < 1:
        raise ConfigError(f"read_text_to_image: val_share: {val_share} is not in [0, 1)")
    for key, number in (("captions", captions), ("limit", limit)):
        if number is not None and number < 1:
            raise ConfigError(f"read_text_to_image: {key}: {number} is less than 1; give a number or null")
    for split in names:
        check_split(split, "read_text_to_image: names")
    table = read_boxes(Path(boxes)) if boxes is not None else None
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    for split, rows in _split_names(names, val_share, seed).items():
        for row in rows[:limit]:
            image_id = Path(row).name
            if image_id in scenes:
                raise AtlasError(f"{names.get(split, split)}: '{image_id}' occurs twice; keep one of them")
            path = f"{row}{ending}"
            width, height = image_size(images / path) if require_images else (0, 0)
            scenes[image_id] = Scene(image_id, path, width, height, split, [], _category(row))
            extra: dict[str, Any] = {}
            if table is not None:
                if path not in table:
                    raise AtlasError(f"{boxes}/images.txt: no line for '{path}'; unpack the archive again")
                extra["crop"] = crop_square(table[path], width, height)
            for number, text in enumerate(_captions(texts / f"{row}.txt")[:captions]):
                examples.append(Example(f"{image_id}.c{number}", image_id, text, extra=dict(extra)))
    check_examples(examples, scenes, str(texts))
    return Corpus(images, scenes, examples, name)


def _split_names(names: Mapping[str, str | Path], val_share: float, seed: int) -> dict[str, list[str]]:
    """{split: names}, in the order of SPLITS."""
    found = {split: read_names(Path(names[split])) for split in SPLITS if split in names}
    if not found:
        raise ConfigError("read_text_to_image: names: is empty; give e.g. train: .../filenames.pickle")
    if val_share and "val" not in found and "train" in found:
        rows = found["train"]
        drawn = np.random.default_rng(seed).permutation(len(rows))[: round(val_share * len(rows))]
        held = set(drawn.tolist())
        found["train"] = [row for n, row in enumerate(rows) if n not in held]
        found["val"] = [row for n, row in enumerate(rows) if n in held]
    return {split: found[split] for split in SPLITS if split in found}


def _category(row: str) -> str:
    """`001.Black_footed_Albatross/...` -> `Black_footed_Albatross`; "" without a folder."""
    folder = Path(row).parent.name
    number, dot, rest = folder.partition(".")
    return rest if dot and number.isdigit() else folder


def _captions(path: Path) -> list[str]:
    """The non-empty lines of a caption file. Two broken characters count as a space, as in AttnGAN."""
    if not path.exists():
        raise AtlasError(f"{path}: no such file; unpack the archive of captions again")
    text = path.read_bytes().decode("utf-8", errors="replace").replace("\ufffd\ufffd", " ")
    lines = [" ".join(line.split()) for line in text.splitlines()]
    kept = [line for line in lines if any(c.isalnum() for c in line)]
    if not kept:
        raise AtlasError(f"{path}: no captions; write one per line")
    return kept
