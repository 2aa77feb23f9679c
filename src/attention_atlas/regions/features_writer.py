"""Writer of `features.h5`; import it from `features_file`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

from attention_atlas.errors import AtlasError
from attention_atlas.files import atomic_path, hdf5_file
from attention_atlas.regions.features_schema import PER_REGION, SCHEMA, check_arrays

_GROW = 256  # images by which the feature dataset grows in each step


class FeaturesWriter:
    """Writes `features.h5` under a temporary name, renamed when the `with` block ends without error.

    with FeaturesWriter(path, dim=256, regions=36, labels=[...], attributes=[...], source="...") as writer:
        writer.add("img1", features=..., boxes=..., size=(144, 144), label=..., label_confidence=...)

    `add` raises AtlasError, naming the image, for the values that `FeaturesFile` rejects.
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
        self._skipped: list[str] = []
        self._counts: list[int] = []
        self._sizes: list[tuple[int, int]] = []
        self._rows: dict[str, list[np.ndarray]] = {name: [] for name in PER_REGION}

    def __enter__(self) -> FeaturesWriter:
        with ExitStack() as stack:
            part = stack.enter_context(atomic_path(self.path))
            self._h5, self._check = stack.enter_context(hdf5_file(part))
            self._features = self._h5.create_dataset(
                "features",
                shape=(0, self.regions, self.dim),
                maxshape=(None, self.regions, self.dim),
                chunks=(1, self.regions, self.dim),
                dtype="float16",
            )
            self._context = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._context:
            if error is not None:
                raise error
            self._finish()

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
        """Append one image with n <= N regions. `size` is (width, height) in pixels."""
        where = f"{self.path}: image '{image_id}'"
        if image_id in self._ids:
            raise AtlasError(f"{where}: image_id: occurs twice; keep one of the images")
        features = np.asarray(features)
        n = len(features)
        if n == 0:
            raise AtlasError(
                f"{where}: count: has 0 objects; lower the detector's threshold or remove the image"
            )
        if n > self.regions:
            raise AtlasError(f"{where}: features: {n} regions, the maximum is {self.regions}; keep the best")
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
        for name, (dtype, letters, empty) in PER_REGION.items():
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
        with np.errstate(over="ignore"):  # an overflow becomes inf, which the check below reports
            padded[:n] = features
        arrays: dict[str, np.ndarray] = {name: row[None] for name, row in rows.items()}
        arrays |= {"features": padded[None], "count": np.array([n])}
        check_arrays(arrays, [image_id], len(self.labels), len(self.attributes), str(self.path))

        index = len(self._ids)
        if index >= len(self._features):
            self._features.resize(index + _GROW, axis=0)
        self._features[index] = padded
        self._check()
        self._ids[image_id] = index
        self._counts.append(n)
        self._sizes.append((int(size[0]), int(size[1])))
        for name, row in rows.items():
            self._rows[name].append(row)

    def skip(self, image_ids: Sequence[str]) -> None:
        """Record images of the corpus that are deliberately omitted."""
        self._skipped = list(image_ids)

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
        if self._skipped:
            h5.create_dataset("skipped", data=self._skipped, dtype=text)
        h5.create_dataset("count", data=np.array(self._counts, dtype="int32"))
        h5.create_dataset("size", data=np.array(self._sizes, dtype="int32"))
        for name, (dtype, _, _) in PER_REGION.items():
            h5.create_dataset(name, data=np.stack(self._rows[name]).astype(dtype))
        for key, value in self._attrs.items():
            h5.attrs[key] = value
