"""COCO captions with Karpathy's splits (`dataset_coco.json`): about five one-sentence captions per
photograph.

`restval`, the part of COCO's validation set that Karpathy assigns to training, is the split `extra`:
captioning papers train on train+extra (113,287 images); val and test have 5,000 images each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from attention_atlas.data.coco_instances import read_instances
from attention_atlas.data.corpus import Corpus
from attention_atlas.data.karpathy import read_karpathy

SPLITS = {"train": "train", "restval": "extra", "val": "val", "test": "test"}


def read_coco_captions(
    karpathy: str | Path,
    images: str | Path,
    name: str = "coco_captions",
    keep_splits: Sequence[str] = ("train", "extra", "val", "test"),
    text: str = "tokens",
    require_images: bool = True,
    limit: int | Mapping[str, int] | None = None,
    instances: Sequence[str | Path] = (),
) -> Corpus:
    """Read the corpus. `image_id` is COCO's number, as in bottom-up features.

    karpathy: dataset_coco.json. images: the folder that holds train2014/ and val2014/; with
    `require_images` each image of `keep_splits` must exist and sets width and height, else both are 0.
    text: tokens (lower-case, without punctuation, joined by spaces, as captioners learn) or raw. limit:
    maximum number of images per split, in file order: one number, or {split: number}. instances: COCO's
    instances_*.json, which adds objects to the scenes (see coco_instances). Raises AtlasError for a missing
    file or field, an unknown split, a duplicate id, or a text without words.
    """
    corpus = read_karpathy(
        Path(karpathy),
        Path(images),
        name,
        file="dataset_coco.json",
        prefix="coco",
        splits=SPLITS,
        image=lambda row: (row.id("cocoid"), "cocoid", f"{row.text('filepath')}/{row.text('filename')}"),
        keep_splits=keep_splits,
        text=text,
        require_images=require_images,
        limit=limit,
    )
    if instances:
        found = read_instances(instances)
        for image_id, scene in corpus.scenes.items():
            scene.objects = found.get(int(image_id), [])
    return corpus
