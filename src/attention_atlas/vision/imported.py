"""What the readers of ready-made features share: vocabularies, matching of image ids, clean boxes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.corpus import Corpus, Scene
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.vision.features_file import FeaturesWriter
from attention_atlas.vision.source import FeatureSource, ImageRegions, write_regions

MIN_SIDE = 1.0  # pixels; detectors sometimes return boxes thinner than that at the border


@dataclass
class Record:
    """One image as an archive holds it: raw arrays with n rows, any of the last four absent."""

    features: np.ndarray
    boxes: np.ndarray
    size: tuple[int, int] | None  # width, height; None: take the scene's
    objects_id: np.ndarray | None = None
    objects_conf: np.ndarray | None = None
    attrs_id: np.ndarray | None = None
    attrs_conf: np.ndarray | None = None


def read_vocabulary(path: str | Path | None, expected: int | None, field: str) -> list[str]:
    """Names, one a line, synonyms behind commas ('couch,sofa'); [] without a path.

    Raises AtlasError when the file is missing, has an empty line among its names, or another number of
    names than `expected`: class indices would then mean other words.
    """
    if path is None:
        return []
    path = Path(path)
    if not path.exists():
        raise AtlasError(
            f"{path}: {field}: no such file; get it from the detector's authors or correct the path"
        )
    names = [line.strip() for line in path.read_text(encoding="utf-8").rstrip().split("\n")]
    if not all(names):
        raise AtlasError(f"{path}: line {names.index('') + 1}: is empty; each line must name one class")
    if expected is not None and len(names) != expected:
        raise AtlasError(f"{path}: {field}: has {len(names)} names, expected {expected}; give the right list")
    return names


@dataclass(kw_only=True)
class ImportedFeatures(FeatureSource):
    """Base of the readers: converts an archive of someone else's detector into `features.h5`.

    A sub-class yields raw records in `records`; which classes they name is said by the two vocabularies.
    `first_class` is the class index of the first name in them: 0 when the detector's background class was
    taken off before (the usual archives), 1 when it was kept.
    """

    dim: int = 2048
    regions: int = 36
    objects_vocab: str | None = None
    attributes_vocab: str | None = None
    objects: int | None = 1600  # expected number of names; null: any
    attributes: int | None = 400
    first_class: int = 0
    image_key: str = "{image_id}"  # how the archive spells the id of an image
    boxes_are: str = "pixels"  # or relative, 0..1 of width and height
    source: str = "bottom-up"

    @abstractmethod
    def records(self, wanted: Mapping[str, Scene]) -> Iterator[tuple[str, Record]]:
        """Yield (key, record) of the archive's images whose key is in `wanted`, each in full."""

    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        if self.boxes_are not in ("pixels", "relative"):
            raise ConfigError(f"features.boxes_are: '{self.boxes_are}' is unknown; known: pixels, relative")
        labels = read_vocabulary(self.objects_vocab, self.objects, "objects_vocab")
        attributes = read_vocabulary(self.attributes_vocab, self.attributes, "attributes_vocab")
        wanted = {self.image_key.format(image_id=i): scene for i, scene in corpus.scenes.items()}
        seen: set[str] = set()

        def rows() -> Iterator[tuple[str, ImageRegions]]:
            for key, record in self.records(wanted):
                seen.add(key)
                image_id = wanted[key].image_id
                yield image_id, self._convert(image_id, record, wanted[key], labels, attributes)
            missing = [key for key in wanted if key not in seen]
            if missing:
                raise AtlasError(
                    f"{self.where()}: image '{missing[0]}': not in the archive ({len(missing)} of "
                    f"{len(wanted)} are not); add them, or correct features.image_key"
                )

        with FeaturesWriter(
            out,
            dim=self.dim,
            regions=self.regions,
            labels=labels,
            attributes=attributes,
            source=self.source,
            config_hash=self.fingerprint(),
        ) as writer:
            write_regions(writer, rows())

    @abstractmethod
    def where(self) -> str:
        """The archive's path, for error lines."""

    def _convert(
        self, image_id: str, record: Record, scene: Scene, labels: list[str], attributes: list[str]
    ) -> ImageRegions:
        at = f"{self.where()}: image '{image_id}'"
        boxes = np.asarray(record.boxes, dtype=np.float64)
        if boxes.shape != (len(record.features), 4):
            raise AtlasError(
                f"{at}: boxes: shape {boxes.shape} for {len(record.features)} features; make the archive anew"
            )
        size = record.size or (scene.width, scene.height)
        if min(size) < 1:
            raise AtlasError(
                f"{at}: size: {size[0]}x{size[1]}; neither archive nor picture says how large the image is"
            )
        boxes = clean_boxes(boxes * (np.array([*size, *size]) if self.boxes_are == "relative" else 1), size)
        # More regions than asked for: keep the surest, or the first where no confidence is given.
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

    def _classes(self, at: str, kind: str, record: Record, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        index, chance = getattr(record, f"{kind}_id"), getattr(record, f"{kind}_conf")
        for name, values in ((f"{kind}_id", index), (f"{kind}_conf", chance)):
            if values is None:
                raise AtlasError(
                    f"{at}: {name}: missing, but a vocabulary is given; add it, or set the vocabulary to null"
                )
            if np.shape(values) != (len(record.features),):
                raise AtlasError(
                    f"{at}: {name}: shape {np.shape(values)}, expected ({len(record.features)},); "
                    "make the archive anew"
                )
        return index[keep].astype(np.int64) - self.first_class, chance[keep].astype(np.float64)


def clean_boxes(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut boxes (n,4) at the image border and widen those thinner than MIN_SIDE. NaN stays NaN."""
    limit = np.array(size, dtype=np.float64)
    low = np.clip(boxes[:, :2], 0, limit - MIN_SIDE)
    high = np.minimum(np.maximum(boxes[:, 2:], low + MIN_SIDE), limit)
    return np.concatenate([low, high], axis=1)


def optional(row: Mapping[str, Any], name: str | None) -> Any:
    """row[name], or None when the layout has no such field or the archive does not hold it."""
    return row[name] if name is not None and name in row else None
