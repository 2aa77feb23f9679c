"""Flickr30k captions (Young et al. 2014) with Karpathy's splits (`dataset_flickr30k.json`): five one-sentence
captions per photograph; 29,000 images to train, 1,014 to validate, 1,000 to test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.karpathy import read_karpathy

SPLITS = ("train", "val", "test")


def read_flickr30k(
    karpathy: str | Path,
    images: str | Path,
    name: str = "flickr30k",
    keep_splits: Sequence[str] = SPLITS,
    text: str = "raw",
    require_images: bool = True,
    limit: int | Mapping[str, int] | None = None,
) -> Corpus:
    """Read the corpus. `image_id` is the file name without its suffix, as in bottom-up features.

    karpathy: dataset_flickr30k.json. images: the folder of the photographs; with `require_images` each one of
    `keep_splits` must exist and sets width and height, else both are 0. text: raw or tokens (lower-case,
    without punctuation, joined by spaces). limit: as for read_coco_captions. Raises AtlasError for a missing
    file or field, an unknown split, a duplicate id, or a text without words.
    """
    return read_karpathy(
        Path(karpathy),
        Path(images),
        name,
        file="dataset_flickr30k.json",
        prefix="flickr",
        splits={split: split for split in SPLITS},
        image=lambda row: (Path(row.text("filename")).stem, "filename", row.text("filename")),
        keep_splits=keep_splits,
        text=text,
        require_images=require_images,
        limit=limit,
    )
