"""WebDataset: tar files in which the members of a sample have one name and different suffixes, such as
`0017.jpg` and `0017.txt`."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from attention_atlas.data import json_rows
from attention_atlas.data.corpus import Corpus, Example, Scene, check_examples, check_split
from attention_atlas.data.images import image_size
from attention_atlas.data.tar_members import members, read_member
from attention_atlas.errors import AtlasError

IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff")


def read_webdataset(
    root: str | Path,
    shards: str = "*.tar",
    name: str = "webdataset",
    text: str = "txt",
    field: str = "caption",
    split: str = "test",
    limit: int | None = None,
) -> Corpus:
    """The samples of the uncompressed tar files `shards` (a glob) in the folder `root`, ordered by file name.

    A sample is the members whose names are equal up to the first dot: one image (jpg, png, ...) and one
    text with the suffix `text`: a UTF-8 file, or with `json` its field `field`, a string or a list of them.
    The image id is the common name with '--' for '/'; examples are `<image id>#0`, #1, .... limit: maximum
    number of samples, from the start. Texts are kept in memory; images are read from the tar files when
    needed.

    Raises AtlasError for a missing, damaged or compressed tar file, a member whose path leads out of it, a
    sample without exactly one image and one text, an image or text that cannot be read, or a name in two
    files.
    """
    root = Path(root)
    check_split(split, "data.reader.split")
    archives = sorted(root.glob(shards))
    if not archives:
        raise AtlasError(f"{root}: no file matches '{shards}'; put the tar files there, or correct shards")
    scenes: dict[str, Scene] = {}
    examples: list[Example] = []
    samples = ((archive, *found) for archive in archives for found in _samples(archive))
    most = None if limit is None else max(0, limit)
    for archive, key, sample in itertools.islice(samples, most):  # lists no more archives than it needs
        where = f"{archive}: sample '{key}'"
        image_id = key.replace("/", "--")
        if image_id in scenes:
            raise AtlasError(f"{where}: is also in {scenes[image_id].path}; rename one")
        images = [suffix for suffix in sample if suffix.lower() in IMAGES]
        if len(images) != 1:
            raise AtlasError(f"{where}: has {len(images)} images; give each sample one")
        if text not in sample:
            raise AtlasError(f"{where}: {text}: no such member, only {', '.join(sample)}; correct text")
        image = f"{archive.relative_to(root).as_posix()}/{sample[images[0]]}"
        width, height = image_size(root / image)
        scenes[image_id] = Scene(image_id, image, width, height, split)
        for i, words in enumerate(_texts(archive / sample[text], text, field)):
            examples.append(Example(f"{image_id}#{i}", image_id, words))
    if not scenes:
        raise AtlasError(f"{root}: {shards}: has no sample; put images and texts into the tar files")
    check_examples(examples, scenes, str(root))
    return Corpus(root, scenes, examples, name)


def _samples(archive: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """(key, {suffix: member}) in the order of the archive."""
    found: dict[str, dict[str, str]] = {}
    for member in members(archive, archive.stat().st_mtime_ns):
        path = PurePosixPath(member)
        stem, _, suffix = path.name.partition(".")
        if not stem:  # .DS_Store, ._0017.jpg
            continue
        found.setdefault((path.parent / stem).as_posix(), {})[suffix] = member
    yield from found.items()


def _texts(member: Path, suffix: str, field: str) -> list[str]:
    data = read_member(member)
    assert data is not None
    try:
        content = data.getvalue().decode("utf-8-sig")
        row: Any = json.loads(content) if suffix.endswith("json") else None
    except ValueError as error:  # not UTF-8, or not JSON
        raise AtlasError(f"{member}: cannot be read ({error}); make the archive again") from None
    if row is None and not suffix.endswith("json"):
        return [content.strip()]
    value = json_rows.value(row, field, str(member))
    if isinstance(value, list):
        found = json_rows.items(row, field, str(member))
        return [json_rows.text({field: item}, field, str(member)).strip() for item in found]
    return [json_rows.text(row, field, str(member)).strip()]
