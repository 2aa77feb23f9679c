"""The interface of feature sources: a class with `extract`, chosen by `_target_` in conf/features/*.yaml."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError
from attention_atlas.files import atomic_path
from attention_atlas.progress import progress
from attention_atlas.regions.features_file import FeaturesWriter

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class FeatureSource(ABC):
    """Writes `features.h5` for the images of a corpus. To add a source, write one module and one YAML file.

    Subclasses are dataclasses: their fields are the keys of the YAML and determine `fingerprint`.
    """

    @abstractmethod
    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        """Write `out` for every image of `corpus.scenes`. `work` belongs to this configuration, code and
        input only; unfinished work in it is resumed."""

    def fingerprint(self) -> str:
        """Digest of the settings, written as `config_hash`."""
        values = {"class": type(self).__name__, **dataclasses.asdict(self)}
        text = json.dumps(values, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass
class ImageRegions:
    """Regions of one image before writing; fields as in `FeaturesWriter.add` (n rows)."""

    features: np.ndarray  # (n, D)
    boxes: np.ndarray  # (n, 4) pixels
    size: tuple[int, int]  # width, height
    label: np.ndarray | None = None
    label_confidence: np.ndarray | None = None
    attribute: np.ndarray | None = None
    attribute_confidence: np.ndarray | None = None
    gold: np.ndarray | None = None


def open_image(corpus: Corpus, image_id: str) -> Image:
    """`read_rgb` of the image. Raises AtlasError if it is missing, unreadable or of another size."""
    path, scene = corpus.image_path(image_id), corpus.scenes[image_id]
    rgb = read_rgb(path)
    if rgb.size != (scene.width, scene.height):
        raise AtlasError(
            f"{path}: image '{image_id}': is {rgb.size[0]}x{rgb.size[1]}, but the scene has "
            f"{scene.width}x{scene.height}; correct width and height in the scenes"
        )
    return rgb


def in_blocks(
    image_ids: Sequence[str],
    compute: Callable[[list[str]], list[ImageRegions]],
    work: Path,
    block: int,
    what: str,
) -> Iterator[tuple[str, ImageRegions]]:
    """Yield regions in order, computing `block` images at a time and storing each block in `work`.

    A block is one npz file, written atomically, so a killed run resumes with the next block.
    """
    starts = range(0, len(image_ids), block)
    for start in progress(starts, what, total=len(starts)):
        ids = list(image_ids[start : start + block])
        path = work / "blocks" / f"{start:07d}.npz"
        if not path.exists():
            with atomic_path(path) as temporary:
                np.savez(temporary, **_pack(compute(ids)))
        with np.load(path) as packed:
            yield from zip(ids, _unpack(packed, len(ids)))


def _pack(rows: list[ImageRegions]) -> dict[str, Any]:
    packed: dict[str, Any] = {}
    for i, row in enumerate(rows):
        for field in dataclasses.fields(row):
            value = getattr(row, field.name)
            if value is not None:
                packed[f"{i}.{field.name}"] = np.asarray(value)
    return packed


def _unpack(packed: Any, count: int) -> Iterator[ImageRegions]:
    names = [field.name for field in dataclasses.fields(ImageRegions)]
    for i in range(count):
        values = {name: packed[f"{i}.{name}"] for name in names if f"{i}.{name}" in packed}
        values["size"] = tuple(int(v) for v in values["size"])
        yield ImageRegions(**values)


def write_regions(writer: FeaturesWriter, rows: Iterable[tuple[str, ImageRegions]]) -> None:
    for image_id, row in rows:
        writer.add(image_id, **{f.name: getattr(row, f.name) for f in dataclasses.fields(row)})
