"""`features.h5`: the module that reads, validates and (through FeaturesWriter) writes region features.

Axes: I images, N regions per image (padded), D feature dimensions. See docs/contracts.md and
docs/features.md for the layout.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError
from attention_atlas.regions.features_schema import PER_REGION, SCHEMA, check_arrays
from attention_atlas.regions.features_writer import FeaturesWriter

__all__ = ["SCHEMA", "FeaturesFile", "FeaturesWriter", "Regions", "first_synonym", "with_regions"]

_CHECK_BYTES = 64 << 20  # bytes of features per step of the validation


@dataclass
class Regions:
    """Regions of one image, padded to N rows; the first `count` are real.

    features (N,D) float16; boxes (N,4) float32, x1,y1,x2,y2 in pixels; size (width, height) in pixels;
    label (N,) index into the file's labels; attribute (N,) index into its attributes or -1; confidences (N,)
    in 0..1; gold (N,) SceneObject id or -1.
    """

    image_id: str
    count: int
    size: tuple[int, int]
    features: np.ndarray
    boxes: np.ndarray
    label: np.ndarray
    label_confidence: np.ndarray
    attribute: np.ndarray
    attribute_confidence: np.ndarray
    gold: np.ndarray


def first_synonym(name: str) -> str:
    """'couch,sofa' -> 'couch': the vocabularies separate synonyms by commas."""
    return name.split(",")[0].strip()


def with_regions(corpus: Corpus, features: FeaturesFile) -> Corpus:
    """`corpus` without the examples on images in `features.skipped`; prints their number.

    Keeps images that the file lacks for another reason; reading these raises AtlasError.
    """
    skipped = set(features.skipped)
    kept = [e for e in corpus.examples if e.image_id not in skipped]
    if len(kept) == len(corpus.examples):
        return corpus
    print(
        f"{features.path}: {len(corpus.examples) - len(kept)} of {len(corpus.examples)} examples of "
        f"{corpus.name} are dropped, because their images have no regions (skipped)"
    )
    scenes = {i: s for i, s in corpus.scenes.items() if i not in skipped}
    return dataclasses.replace(corpus, scenes=scenes, examples=kept)


class FeaturesFile:
    """Reads and validates `features.h5`. Raises AtlasError for an invalid file.

    `check_values=False` skips the check for finite features, which reads the whole file. Open one object per
    process, because an HDF5 handle must not cross a fork. `skipped`: ids of images that the features stage
    dropped because their row in an archive was damaged or missing.
    """

    def __init__(self, path: str | Path, *, check_values: bool = True) -> None:
        self.path = Path(path)
        if not self.path.exists():
            raise AtlasError(
                f"{self.path}: no such file; run the features stage (dvc repro) or correct the path"
            )
        try:
            self._h5 = h5py.File(self.path, "r")
        except OSError:
            raise AtlasError(
                f"{self.path}: not an HDF5 file, or truncated; delete it and run the features stage again"
            ) from None
        try:
            self._load(check_values)
        except (OSError, RuntimeError):
            self.close()
            raise AtlasError(
                f"{self.path}: cannot be read to its end; delete it and run the features stage again"
            ) from None
        except BaseException:
            self.close()
            raise

    def _load(self, check_values: bool) -> None:
        h5, path = self._h5, self.path
        schema = h5.attrs.get("schema")
        if schema != SCHEMA:
            raise AtlasError(f"{path}: schema: is {schema!r}, expected '{SCHEMA}'; give a features file")
        names = ("image_id", "features", "size", "count", "labels", "attributes", *PER_REGION)
        for name in names:
            if name not in h5:
                raise AtlasError(f"{path}: {name}: data set is missing; run the features stage again")
        self.source = str(h5.attrs.get("source", ""))
        self.config_hash = str(h5.attrs.get("config_hash", ""))
        self.image_ids: list[str] = list(h5["image_id"].asstr()[:])
        self.skipped: list[str] = list(h5["skipped"].asstr()[:]) if "skipped" in h5 else []
        self.labels: list[str] = list(h5["labels"].asstr()[:])
        self.attributes: list[str] = list(h5["attributes"].asstr()[:])
        if h5["features"].ndim != 3:
            raise AtlasError(
                f"{path}: features: shape {h5['features'].shape}, expected (images, regions, dim)"
            )
        images, self.regions, self.dim = h5["features"].shape
        shapes = {"N": (images, self.regions), "N4": (images, self.regions, 4)}
        expected = {name: shapes[letters] for name, (_, letters, _) in PER_REGION.items()}
        expected |= {"image_id": (images,), "count": (images,), "size": (images, 2)}
        for name, shape in expected.items():
            if h5[name].shape != shape:
                raise AtlasError(
                    f"{path}: {name}: shape {h5[name].shape}, expected {shape}; run the features stage again"
                )
        self._index = {image_id: i for i, image_id in enumerate(self.image_ids)}
        if len(self._index) != images:
            seen: set[str] = set()
            twice = next(i for i in self.image_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise AtlasError(f"{path}: image_id: '{twice}' occurs twice; keep one of the images")
        self.count = h5["count"][:].astype("int32")
        self.size = h5["size"][:]
        self._small = {name: h5[name][:] for name in PER_REGION}
        arrays = {**self._small, "count": self.count}
        check_arrays(arrays, self.image_ids, len(self.labels), len(self.attributes), str(path))
        if check_values:
            step = max(1, _CHECK_BYTES // max(1, self.regions * self.dim * 2))
            for start in range(0, images, step):
                block = {
                    "features": h5["features"][start : start + step],
                    "count": self.count[start : start + step],
                }
                check_arrays(block, self.image_ids[start : start + step], 0, 0, str(path))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process reopens the file."""
        return functools.partial(FeaturesFile, self.path.absolute(), check_values=False), ()

    def __enter__(self) -> FeaturesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._h5.close()

    def index(self, image_id: str) -> int:
        """Row of an image. Raises AtlasError if it is not in the file."""
        try:
            return self._index[image_id]
        except KeyError:
            raise AtlasError(
                f"{self.path}: image_id: no image '{image_id}'; run the features stage on its corpus"
            ) from None

    def read(self, image_id: str) -> Regions:
        """All fields of one image, padded to N regions."""
        i = self.index(image_id)
        width, height = (int(v) for v in self.size[i])
        return Regions(
            image_id=image_id,
            count=int(self.count[i]),
            size=(width, height),
            features=self._h5["features"][i],
            **{name: values[i].copy() for name, values in self._small.items()},
        )

    def descriptions(self, image_id: str, threshold: float = 0.1) -> list[str]:
        """A description of each real region: 'attribute label', or 'label'. Length = count.

        Includes the attribute if its confidence is strictly above the threshold (0.1 in the
        bottom-up-attention demo), and uses the first synonym of each name. Raises AtlasError if the file has
        no labels.
        """
        i = self.index(image_id)
        if not self.labels:
            raise AtlasError(
                f"{self.path}: labels: the file has none, so regions have no names; "
                "use a source with object classes"
            )
        names = []
        for r in range(int(self.count[i])):
            name = first_synonym(self.labels[self._small["label"][i, r]])
            attribute = int(self._small["attribute"][i, r])
            if attribute >= 0 and float(self._small["attribute_confidence"][i, r]) > threshold:
                name = f"{first_synonym(self.attributes[attribute])} {name}"
            names.append(name)
        return names
