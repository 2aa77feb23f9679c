"""Common parts of the readers of precomputed features: vocabularies, matching of image ids, box cleaning."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Corpus, Scene
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import read_text
from attention_atlas.regions.features_file import FeaturesWriter
from attention_atlas.regions.source import FeatureSource, ImageRegions, write_regions

MIN_SIDE = 1.0  # pixels; detectors sometimes return boxes thinner than that at the border
SKIP = "skip_damaged=N skips up to N images whose row is damaged or missing"
OUTSIDE = 0.05  # fraction of a side by which a box may exceed the image; more means a wrong image


@dataclass
class Record:
    """One image as stored in an archive: raw arrays with n rows; the last four are optional."""

    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int] | None  # width, height of the image that the detector saw; None: unknown
    objects_id: np.ndarray | None = None
    objects_conf: np.ndarray | None = None
    attrs_id: np.ndarray | None = None
    attrs_conf: np.ndarray | None = None


def read_vocabulary(path: str | Path | None, expected: int | None, field: str) -> list[str]:
    """Names, one per line, with synonyms after commas ('couch,sofa'); [] without a path.

    Raises AtlasError if the file is missing, has an empty line, or does not have `expected` names: class
    indices would then refer to wrong names.
    """
    if path is None:
        return []
    path = Path(path)
    if not path.exists():
        raise AtlasError(
            f"{path}: {field}: no such file; download it from the detector's authors or correct the path"
        )
    text = read_text(path, f"{field}: give a list of names, one per line")
    names = [line.strip() for line in text.rstrip().split("\n")]
    if not all(names):
        raise AtlasError(f"{path}: line {names.index('') + 1}: is empty; each line must name one class")
    if expected is not None and len(names) != expected:
        raise AtlasError(
            f"{path}: {field}: has {len(names)} names, expected {expected}; use the detector's list"
        )
    return names


@dataclass(kw_only=True)
class ImportedFeatures(FeatureSource):
    """Base of the readers: converts the archive of a third-party detector into `features.h5`.

    A subclass yields raw records in `records`; the two vocabularies name their classes. `first_class` is the
    class index of the vocabularies' first name: 0 if the detector's background class was removed (as in most
    archives), 1 if it was kept.

    `image_key` converts an image's id to the archive's. It is a format string with the fields `image_id`,
    `stem` (name of the image file without its suffix) and `number` (the digits at the end of the id, as an
    integer): "COCO_val2014_{number:012d}".

    Skips up to `skip_damaged` images whose row is damaged or missing, stores their ids as `skipped` and
    prints their number; more of them (by default, any) raise AtlasError.
    """

    dim: int = 2048
    regions: int = 36
    objects_vocab: str | None = None
    attributes_vocab: str | None = None
    objects: int | None = 1600  # expected number of names; null: any
    attributes: int | None = 400
    first_class: int = 0
    image_key: str = "{image_id}"
    skip_damaged: int = 0
    boxes_are: str = "pixels"  # or relative, 0..1 of width and height
    source: str = "bottom-up"

    @abstractmethod
    def records(self, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Callable[[], Record]]]:
        """Yield (key, read) for each image of the archive whose key is in `wanted`. `read()` returns the full
        record and raises AtlasError if it is damaged; faults of the whole archive are raised immediately."""

    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        if self.boxes_are not in ("pixels", "relative"):
            raise ConfigError(
                f"{type(self).__name__}: boxes_are: '{self.boxes_are}' is unknown; known: pixels, relative"
            )
        labels = read_vocabulary(self.objects_vocab, self.objects, "objects_vocab")
        attributes = read_vocabulary(self.attributes_vocab, self.attributes, "attributes_vocab")
        wanted = spelled(corpus.scenes, self.image_key)
        written: set[str] = set()
        damaged: dict[str, str] = {}  # key -> what is wrong
        with FeaturesWriter(
            out,
            dim=self.dim,
            regions=self.regions,
            labels=labels,
            attributes=attributes,
            source=self.source,
            config_hash=self.fingerprint(),
        ) as writer:
            for key, read in self.records(wanted):
                scene = wanted[key]
                if key in written:
                    raise AtlasError(
                        f"{self.where()}: image '{scene.image_id}': image_id: occurs twice; keep one row"
                    )
                try:
                    row = self._convert(scene.image_id, read(), scene, labels, attributes)
                    write_regions(writer, [(scene.image_id, row)])
                except AtlasError as error:
                    damaged[key] = str(error)
                    if len(damaged) > self.skip_damaged:
                        raise AtlasError(f"{error}; {SKIP}") from None
                else:
                    written.add(key)
                    damaged.pop(key, None)
            missing = [key for key in wanted if key not in written and key not in damaged]
            if len(missing) + len(damaged) > self.skip_damaged:
                raise AtlasError(
                    f"{self.where()}: image '{missing[0]}': not in the archive ({len(missing)} of "
                    f"{len(wanted)} are not); add them, or correct image_key; {SKIP}"
                )
            if missing or damaged:
                skipped = [s.image_id for key, s in wanted.items() if key not in written]
                print(
                    f"{self.where()}: skipped {len(skipped)} of {len(wanted)} images ({len(damaged)} "
                    f"damaged, {len(missing)} missing), e.g. {next(iter(damaged.values()), skipped[0])}"
                )
                writer.skip(skipped)

    @abstractmethod
    def where(self) -> str:
        """The archive's path, for error messages."""

    def _convert(
        self, image_id: str, record: Record, scene: Scene, labels: list[str], attributes: list[str]
    ) -> ImageRegions:
        at = f"{self.where()}: image '{image_id}'"
        boxes = np.asarray(record.boxes, dtype=np.float64)
        if boxes.shape != (len(record.features), 4):
            raise AtlasError(
                f"{at}: boxes: shape {boxes.shape} for {len(record.features)} features; fix the archive"
            )
        size = self._size(at, record.size, (scene.width, scene.height))
        if self.boxes_are == "relative":
            boxes = boxes * np.array([*size, *size])
        elif boxes.size and boxes.max() <= 1 < min(size):
            raise AtlasError(f"{at}: boxes: all are within 0..1; set boxes_are to relative")
        reach = np.abs(boxes / np.array([*size, *size]) - 0.5).max(initial=0.0)
        if reach > 0.5 + OUTSIDE:
            raise AtlasError(
                f"{at}: boxes: one exceeds the image of {size[0]}x{size[1]} pixels; use the images that "
                "the detector saw, or correct boxes_are"
            )
        boxes = clean_boxes(boxes, size)
        # Too many regions: keep the most confident, or the first ones if there are no confidences.
        keep = np.arange(len(boxes))
        if len(boxes) > self.regions and record.objects_conf is not None:
            keep = np.sort(np.argsort(-record.objects_conf, kind="stable")[: self.regions])
        keep = keep[: self.regions]
        row = ImageRegions(features=record.features[keep], boxes=boxes[keep], size=size)
        if labels:
            row.label, row.label_confidence = self._classes(at, "objects", record, keep)
        if attributes:
            row.attribute, row.attribute_confidence = self._classes(at, "attrs", record, keep)
        return row

    def _size(self, at: str, archive: tuple[int, int] | None, image: tuple[int, int]) -> tuple[int, int]:
        """(width, height) in pixels, checked to be the same in archive and image where both have it."""
        if min(image) < 1:  # read without images
            image = archive or image
        if min(image) < 1:
            raise AtlasError(f"{at}: size: unknown to the archive and the corpus; read it with its images")
        if archive is None or archive == image:
            return image
        remedy = "use the images that the detector saw, or run it on these"
        if archive == image[::-1]:
            remedy = (
                "swap width and height in columns or names (LXMERT writes the height "
                "first); if this image alone has an EXIF orientation, run the detector on it upright"
            )
        raise AtlasError(
            f"{at}: width, height: {archive[0]}x{archive[1]} in the archive, but the image has "
            f"{image[0]}x{image[1]}; {remedy}"
        )

    def _classes(self, at: str, kind: str, record: Record, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index, chance = getattr(record, f"{kind}_id"), getattr(record, f"{kind}_conf")
        for name, values in ((f"{kind}_id", index), (f"{kind}_conf", chance)):
            if values is None:
                raise AtlasError(
                    f"{at}: {name}: is missing, but has a vocabulary; add it, or set the vocabulary to null"
                )
            if np.shape(values) != (len(record.features),):
                raise AtlasError(
                    f"{at}: {name}: shape {np.shape(values)}, expected ({len(record.features)},); "
                    "fix the archive"
                )
        return index[keep].astype(np.int64) - self.first_class, chance[keep].astype(np.float64)


def spelled(scenes: Mapping[str, Scene], image_key: str) -> dict[str, Scene]:
    """{key in the archive: scene}. Raises ConfigError for a format that does not match."""
    keys: dict[str, Scene] = {}
    for image_id, scene in scenes.items():
        values: dict[str, Any] = {"image_id": image_id, "stem": Path(scene.path).stem}
        digits = re.search(r"\d+$", image_id)
        if digits:
            values["number"] = int(digits.group())
        try:
            key = image_key.format_map(values)
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise ConfigError(
                f"image_key: '{image_key}' does not match image '{image_id}' ({error}); known: "
                "image_id, stem (of the image file), number (digits at the end of the id)"
            ) from None
        if key in keys:
            raise ConfigError(
                f"image_key: '{image_key}' gives '{key}' for both '{keys[key].image_id}' and "
                f"'{image_id}'; use {{image_id}}, {{stem}} or {{number}}"
            )
        keys[key] = scene
    return keys


def clean_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Clip boxes (n,4) to the image and widen those thinner than MIN_SIDE. NaN stays NaN."""
    limit = np.array(size, dtype=np.float64)
    low = np.clip(boxes[:, :2], 0, limit - MIN_SIDE)
    high = np.minimum(np.maximum(boxes[:, 2:], low + MIN_SIDE), limit)
    return np.concatenate([low, high], axis=1)


def optional(row: Mapping[str, Any], name: str | None) -> Any:
    """row[name], or None if the layout or the archive lacks it."""
    return row[name] if name is not None and name in row else None
