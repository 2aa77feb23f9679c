"""Import a data set of the `datasets` library as a corpus folder: images, scenes.jsonl and captions.jsonl.

    python -m attention_atlas.data.huggingface nlphuji/flickr30k data/raw/huggingface --text caption

Rows are streamed: memory does not grow with their number, and nothing goes to the library's cache. PATH is a
hub id, or parquet, json, csv, ... with --files.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import Example, Scene, check_examples, check_split
from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.files import lock
from attention_atlas.progress import progress

LAYER = "captions"
SUFFIXES = {b"\xff\xd8\xff": ".jpg", b"\x89PNG": ".png", b"RIFF": ".webp", b"GIF8": ".gif", b"BM": ".bmp"}


def import_dataset(
    path: str,
    out: str | Path,
    *,
    image: str = "image",
    text: str = "text",
    config: str | None = None,
    rows: str = "train",
    files: Sequence[str] = (),
    split: str = "test",
    limit: int | None = None,
) -> int:
    """Write the rows of the data set's split `rows` to the folder `out`; returns their number.

    image, text: columns; a text is a string or a list of strings. config: of a hub data set. files: data
    files of a format such as parquet. split: split of the images in the corpus. limit: maximum number of
    rows, from the start. `out` appears once all rows are written.
    Raises AtlasError for a data set that cannot be opened, a missing column, and a row without an image or
    text that can be read.
    """
    out = Path(out)
    check_split(split, "--as")
    if limit is not None and limit < 1:
        raise ConfigError(f"--limit: must be at least 1, not {limit}")
    if out.exists():
        raise AtlasError(f"{out}: exists; delete it to import again")
    work = out.with_name(f"{out.name}.part")
    work.parent.mkdir(parents=True, exist_ok=True)
    held = lock(out.with_name(f"{out.name}.lock"), out)
    try:
        shutil.rmtree(work, ignore_errors=True)
        (work / "images").mkdir(parents=True)
        count = 0
        with (
            (work / "scenes.jsonl").open("w", encoding="utf-8") as scenes,
            (work / f"{LAYER}.jsonl").open("w", encoding="utf-8") as examples,
        ):
            streamed = _rows(path, config, rows, files, image, text)
            for count, row in enumerate(progress(streamed, "import", total=limit), start=1):
                scene, captions = _convert(
                    row, image, text, f"{path}: row {count - 1}", count - 1, work, split
                )
                scenes.write(_line(scene))
                examples.writelines(map(_line, captions))
                if count == limit:
                    break
        if not count:
            raise AtlasError(f"{path}: {rows}: has no row; choose another split with --rows")
        work.rename(out)
    finally:
        held.release()
        shutil.rmtree(work, ignore_errors=True)
        out.with_name(f"{out.name}.lock").unlink(missing_ok=True)
    return count


def _rows(
    path: str, config: str | None, rows: str, files: Sequence[str], image: str, text: str
) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError:
        raise ConfigError("datasets: is not installed; pip install datasets") from None
    with loading(f"{path}: data set", "give a hub id, or a format with --files"):
        data = datasets.load_dataset(path, config, split=rows, streaming=True, data_files=list(files) or None)
        columns = data.column_names or list(next(iter(data), {}))
    for column in (image, text):
        if column not in columns:
            raise AtlasError(f"{path}: {column}: no such column; known: {', '.join(columns)}")
    data = data.select_columns([image, text])
    if data.features is not None and isinstance(data.features.get(image), datasets.Image):
        data = data.cast_column(image, datasets.Image(decode=False))  # bytes as they are
    given = iter(data)
    number = 0
    while True:
        with loading(f"{path}: row {number}", "repair or leave out the file"):
            row = next(given, None)
        if row is None:
            return
        yield row
        number += 1


def _convert(
    row: Mapping[str, Any], image: str, text: str, where: str, number: int, work: Path, split: str
) -> tuple[Scene, list[Example]]:
    data = _bytes(row[image], f"{where}: {image}")
    suffix = next((s for start, s in SUFFIXES.items() if data.startswith(start)), ".img")
    image_id = f"row{number:09d}"
    # A folder of a million files is slow to list.
    place = f"images/{number // 1000:06d}/{image_id}{suffix}"
    (work / place).parent.mkdir(exist_ok=True)
    (work / place).write_bytes(data)
    try:
        width, height = read_rgb(work / place).size  # decoded here, where the row is known
    except AtlasError as error:
        raise AtlasError(f"{where}: {image}: {str(error).removeprefix(f'{work / place}: ')}") from None
    scene = Scene(image_id, place, width, height, split)
    given = row[text] if isinstance(row[text], list) else [row[text]]
    if not given or not all(isinstance(words, str) for words in given):
        raise AtlasError(f"{where}: {text}: is not text or a list of texts; choose another column")
    found = [Example(f"{image_id}#{i}", image_id, words.strip()) for i, words in enumerate(given)]
    check_examples(found, {image_id: scene}, where)
    return scene, found


def _bytes(value: Any, where: str) -> bytes:
    if isinstance(value, Mapping) and isinstance(value.get("bytes"), bytes):
        return value["bytes"]
    path = value.get("path") if isinstance(value, Mapping) else value
    if isinstance(value, bytes):
        return value
    if not isinstance(path, str) or not path:
        raise AtlasError(f"{where}: is empty or no image; leave the row out, or choose another column")
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise AtlasError(f"{where}: {path}: {error.strerror}; correct the path") from None


def _line(item: Any) -> str:
    return json.dumps(dataclasses.asdict(item), ensure_ascii=False, sort_keys=True) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0, or 1 or 2 after a one-line error."""
    parser = argparse.ArgumentParser(
        prog="python -m attention_atlas.data.huggingface",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("path", help="hub id, or a format: parquet, json, csv, imagefolder, webdataset")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--image", default="image", help="column of the images")
    parser.add_argument("--text", default="text", help="column of the texts")
    parser.add_argument("--config", help="configuration of a hub data set")
    parser.add_argument("--rows", default="train", help="split of the data set (default: train)")
    parser.add_argument("--files", nargs="+", default=[], help="data files of a format")
    parser.add_argument("--as", dest="split", default="test", help="split in the corpus (default: test)")
    parser.add_argument("--limit", type=int, help="number of rows, from the first on")
    args = parser.parse_args(arguments)
    try:
        count = import_dataset(**vars(args))
    except AtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print(f"{args.out}: {count} images")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
