"""`features.h5`: the only module that writes, reads and validates region features.

Axes: I images, N regions per image (padded), D feature dimensions. See docs/contracts.md and
docs/features.md for the layout. Padded regions (index >= count) hold zeros, and -1 for every index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import atomic_path

SCHEMA = "atlas.features/1"
_GROW = 256  # images by which the feature dataset grows at a time
_CHECK_BYTES = 64 << 20  # features looked at per step of the validation

# name -> (dtype, trailing shape in letters, value of padded regions)
_PER_REGION: dict[str, tuple[str, str, int]] = {
    "boxes": ("float32", "N4", 0),
    "label": ("int32", "N", -1),
    "label_confidence": ("float16", "N", 0),
    "attribute": ("int32", "N", -1),
    "attribute_confidence": ("float16", "N", 0),
    "gold": ("int32", "N", -1),
}


@dataclass
class Regions:
    """Regions of one image, padded to N rows of which the first `count` are real.

    features (N,D) float16; boxes (N,4) float32, x1,y1,x2,y2 in pixels; size (width, height) in pixels;
    label (N,) into the file's labels; attribute (N,) into its attributes or -1; confidences (N,) in 0..1;
    gold (N,) SceneObject id or -1.
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
    """'couch,sofa' -> 'couch': the vocabularies put synonyms behind commas."""
    return name.split(",")[0].strip()


class FeaturesWriter:
    """Writes `features.h5` under a temporary name and renames it when the `with` block ends without error.

    with FeaturesWriter(path, dim=256, regions=36, labels=[...], attributes=[...], source="...") as writer:
        writer.add("img1", features=..., boxes=..., size=(144, 144), label=..., label_confidence=...)

    Raises AtlasError from `add` for the same faults that `FeaturesFile` refuses, naming the image.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        dim: int,
        regions: int,
        labels: Sequence[str],
        attributes: Sequence[str] = (),
        source: str,
        config_hash: str = "",
    ) -> None:
        self.path = Path(path)
        self.dim, self.regions = dim, regions
        self.labels, self.attributes = list(labels), list(attributes)
        self._attrs = {"schema": SCHEMA, "config_hash": config_hash, "source": source}
        self._ids: dict[str, int] = {}
        self._counts: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in _PER_REGION}

    def __enter__(self) -> FeaturesWriter:
        self._context = atomic_path(self.path)
        self._h5 = h5py.File(self._context.__enter__(), "w")
        self._features = self._h5.create_dataset(
            "features",
            shape=(0, self.regions, self.dim),
            maxshape=(None, self.regions, self.dim),
            chunks=(1, self.regions, self.dim),
            dtype="float16",
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        except BaseException as failed:
            self._h5.close()
            self._context.__exit__(type(failed), failed, failed.__traceback__)
            raise
        self._h5.close()
        self._context.__exit__(kind, error, trace)

    def add(
        self,
        image_id: str,
        *,
        features: Any,
        boxes: Any,
        size: tuple[int, int],
        label: Any = None,
        label_confidence: Any = None,
        attribute: Any = None,
        attribute_confidence: Any = None,
        gold: Any = None,
    ) -> None:
        """Append one image; arrays have n <= N rows. `size` is (width, height) in pixels."""
        where = f"{self.path}: image '{image_id}'"
        if image_id in self._ids:
            raise AtlasError(f"{where}: image_id: occurs twice; keep one of the images")
        features = np.asarray(features)
        n = len(features)
        if n == 0:
            raise AtlasError(
                f"{where}: count: has 0 objects; lower the detector's threshold or drop the image"
            )
        if n > self.regions:
            raise AtlasError(f"{where}: features: {n} regions, the file holds {self.regions}; keep the best")
        if features.shape != (n, self.dim):
            raise AtlasError(
                f"{where}: features: shape {features.shape}, expected ({n}, {self.dim}); fix the extractor"
            )
        given = {
            "boxes": boxes,
            "label": label,
            "label_confidence": label_confidence,
            "attribute": attribute,
            "attribute_confidence": attribute_confidence,
            "gold": gold,
        }
        rows: dict[str, np.ndarray] = {}
        for name, (dtype, letters, empty) in _PER_REGION.items():
            shape = (n, 4) if letters == "N4" else (n,)
            values = np.full(shape, empty) if given[name] is None else np.asarray(given[name])
            if values.shape != shape:
                raise AtlasError(
                    f"{where}: {name}: shape {values.shape}, expected {shape}; correct the extractor"
                )
            row = np.full((self.regions, *shape[1:]), empty, dtype=dtype)
            row[:n] = values
            rows[name] = row
        padded = np.zeros((self.regions, self.dim), dtype="float16")
        with np.errstate(over="ignore"):  # an overflow becomes inf, which the check below names
            padded[:n] = features
        arrays: dict[str, np.ndarray] = {name: row[None] for name, row in rows.items()}
        arrays |= {"features": padded[None], "count": np.array([n])}
        _check_values(arrays, [image_id], len(self.labels), len(self.attributes), str(self.path))

        index = len(self._ids)
        if index >= len(self._features):
            self._features.resize(index + _GROW, axis=0)
        self._features[index] = padded
        self._ids[image_id] = index
        self._counts.append(n)
        self._sizes.append((int(size[0]), int(size[1])))
        for name, row in rows.items():
            self._rows[name].append(row)

    def _finish(self) -> None:
        images = len(self._ids)
        if images == 0:
            raise AtlasError(
                f"{self.path}: image_id: no images were written; check the corpus and its splits"
            )
        h5 = self._h5
        self._features.resize(images, axis=0)
        text = h5py.string_dtype("utf-8")
        h5.create_dataset("image_id", data=list(self._ids), dtype=text)
        h5.create_dataset("labels", data=self.labels, shape=(len(self.labels),), dtype=text)
        h5.create_dataset("attributes", data=self.attributes, shape=(len(self.attributes),), dtype=text)
        h5.create_dataset("count", data=np.array(self._counts, dtype="int32"))
        h5.create_dataset("size", data=np.array(self._sizes, dtype="int32"))
        for name, (dtype, _, _) in _PER_REGION.items():
            h5.create_dataset(name, data=np.stack(self._rows[name]).astype(dtype))
        for key, value in self._attrs.items():
            h5.attrs[key] = value


class FeaturesFile:
    """Reads and validates `features.h5`. Raises AtlasError, one line, for whatever is wrong with it.

    `check_values=False` skips the pass over all features (finite numbers), which reads the whole file.
    Open one object per process: an HDF5 handle must not cross a fork.
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
                f"{self.path}: not an HDF5 file, or truncated; delete it and run the features stage anew"
            ) from None
        try:
            self._load(check_values)
        except (OSError, RuntimeError):
            self.close()
            raise AtlasError(
                f"{self.path}: cannot be read to its end; delete it and run the features stage anew"
            ) from None
        except BaseException:
            self.close()
            raise

    def _load(self, check_values: bool) -> None:
        h5, path = self._h5, self.path
        schema = h5.attrs.get("schema")
        if schema != SCHEMA:
            raise AtlasError(f"{path}: schema: is {schema!r}, expected '{SCHEMA}'; give a features file")
        names = ("image_id", "features", "size", "count", "labels", "attributes", *_PER_REGION)
        for name in names:
            if name not in h5:
                raise AtlasError(f"{path}: {name}: data set is missing; run the features stage anew")
        self.source = str(h5.attrs.get("source", ""))
        self.config_hash = str(h5.attrs.get("config_hash", ""))
        self.image_ids: list[str] = list(h5["image_id"].asstr()[:])
        self.labels: list[str] = list(h5["labels"].asstr()[:])
        self.attributes: list[str] = list(h5["attributes"].asstr()[:])
        if h5["features"].ndim != 3:
            raise AtlasError(
                f"{path}: features: shape {h5['features'].shape}, expected (images, regions, dim)"
            )
        images, self.regions, self.dim = h5["features"].shape
        shapes = {"N": (images, self.regions), "N4": (images, self.regions, 4)}
        expected = {name: shapes[letters] for name, (_, letters, _) in _PER_REGION.items()}
        expected |= {"image_id": (images,), "count": (images,), "size": (images, 2)}
        for name, shape in expected.items():
            if h5[name].shape != shape:
                raise AtlasError(
                    f"{path}: {name}: shape {h5[name].shape}, expected {shape}; run the features stage anew"
                )
        self._index = {image_id: i for i, image_id in enumerate(self.image_ids)}
        if len(self._index) != images:
            seen: set[str] = set()
            twice = next(i for i in self.image_ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise AtlasError(f"{path}: image_id: '{twice}' occurs twice; keep one of the images")
        self.count = h5["count"][:].astype("int32")
        self.size = h5["size"][:]
        self._small = {name: h5[name][:] for name in _PER_REGION}
        arrays = {**self._small, "count": self.count}
        _check_values(arrays, self.image_ids, len(self.labels), len(self.attributes), str(path))
        if check_values:
            step = max(1, _CHECK_BYTES // max(1, self.regions * self.dim * 2))
            for start in range(0, images, step):
                block = {
                    "features": h5["features"][start : start + step],
                    "count": self.count[start : start + step],
                }
                _check_values(block, self.image_ids[start : start + step], 0, 0, str(path))

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index

    def __enter__(self) -> FeaturesFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._h5.close()

    def index(self, image_id: str) -> int:
        """Row of an image. Raises AtlasError when the file lacks it."""
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
        """What each real region shows, in words: 'attribute label', or 'label'.

        The attribute counts when its confidence is strictly above the threshold (0.1 in the
        bottom-up-attention demo); the first synonym stands for each name. Length = count.
        Raises AtlasError when the file has features but no labels.
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


def _check_values(
    arrays: dict[str, np.ndarray], image_ids: Sequence[str], labels: int, attributes: int, path: str
) -> None:
    """Raise AtlasError for the first image whose values are impossible. Arrays have a leading I axis."""
    count_I = arrays["count"]
    regions = next(a.shape[1] for name, a in arrays.items() if name != "count")
    real_IN = np.arange(regions)[None, :] < count_I[:, None]

    def refuse(bad_I: Any, name: str, message: str) -> None:
        if bad_I.any():
            raise AtlasError(f"{path}: image '{image_ids[int(np.argmax(bad_I))]}': {name}: {message}")

    again = "run the features stage anew"
    refuse(count_I < 1, "count", "has 0 objects; drop the image or lower the detector's threshold")
    refuse(count_I > regions, "count", f"exceeds the {regions} regions of the file; {again}")
    if "features" in arrays:
        # A sum is NaN or infinite when any entry is: one pass, no boolean copy of the features.
        total_I = arrays["features"].sum(axis=(1, 2), dtype="float32")
        refuse(~np.isfinite(total_I), "features", f"not finite (NaN or overflow of float16); {again}")
    if "boxes" in arrays:
        boxes = arrays["boxes"]
        refuse(~np.isfinite(boxes).all(axis=(1, 2)), "boxes", f"not finite; {again}")
        flat_IN = (boxes[..., 2] <= boxes[..., 0]) | (boxes[..., 3] <= boxes[..., 1])
        refuse((flat_IN & real_IN).any(1), "boxes", f"a box has no area (want x1<x2, y1<y2); {again}")
    if "label" in arrays:
        label = arrays["label"]
        low = 0 if labels else -1  # a file without label names has -1 everywhere
        bad_IN = ((label < low) | (label >= labels)) & real_IN
        refuse(bad_IN.any(1), "label", f"index outside the file's {labels} labels; {again}")
    if "attribute" in arrays:
        bad_IN = ((arrays["attribute"] < -1) | (arrays["attribute"] >= attributes)) & real_IN
        refuse(bad_IN.any(1), "attribute", f"index outside the file's {attributes} attributes; {again}")
    for name in ("label_confidence", "attribute_confidence"):
        if name in arrays:
            inside_IN = (arrays[name] >= 0) & (arrays[name] <= 1)  # NaN is not inside either
            refuse((~inside_IN & real_IN).any(1), name, f"not within 0..1; {again}")
