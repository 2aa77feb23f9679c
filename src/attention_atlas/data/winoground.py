"""Winoground (Thrush et al. 2022) as published: examples.jsonl (400 lines) and the folder images/.

Each line is a quadruple: caption_0 and caption_1 have the same words in different order, and caption_i
describes image_i. It becomes two examples with the same `extra.pair`, each with its own image, in the split
`test`.
"""

from __future__ import annotations

from pathlib import Path

from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples
from attention_atlas.data.images import image_size
from attention_atlas.data.json_rows import identifier, text
from attention_atlas.errors import AtlasError
from attention_atlas.files import read_jsonl

TAGS = ("tag", "secondary_tag", "collapsed_tag", "num_main_preds")


def read_winoground(
    examples: str | Path,
    images: str | Path,
    name: str = "winoground",
    suffix: str = ".png",
    require_images: bool = True,
) -> Corpus:
    """Read the corpus. images: folder of <image name><suffix>. Raises AtlasError for a missing file, a field
    that is missing or null, or an image that occurs twice. Does not check that the captions share their
    words."""
    path, folder = Path(examples), Path(images)
    scenes: dict[str, Scene] = {}
    found: list[Example] = []
    for line, row in read_jsonl(path, may_be_empty=True):
        where = f"{path}: line {line}"
        pair = f"winoground{identifier(row, 'id', where)}"
        captions = [text(row, f"caption_{i}", where).strip() for i in (0, 1)]
        extra = {"pair": pair} | {tag: row[tag] for tag in TAGS if tag in row}
        for i, caption in enumerate(captions):
            image = text(row, f"image_{i}", where)
            file = image if Path(image).suffix else f"{image}{suffix}"
            if image in scenes:
                raise AtlasError(f"{where}: image_{i}: '{image}' occurs twice; download the file again")
            width, height = image_size(folder / file) if require_images else (0, 0)
            scenes[image] = Scene(image, file, width, height, "test")
            found.append(Example(f"{pair}.{i}", image, caption, extra=dict(extra)))
    if not found:
        raise AtlasError(f"{path}: is empty; download the file again")
    check_examples(found, scenes, str(path))
    return Corpus(folder, scenes, found, name)
