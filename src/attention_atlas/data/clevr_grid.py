"""Features of whole CLEVR images, as its feature extraction writes them: `features` (I,C,H,W), one file per
image set, row i for the image with number i (ResNet-101's conv4: C 1024, H and W 14)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.errors import AtlasError


class ClevrGrid:
    """files: {image set (train, val): path}. Files are opened on first use."""

    def __init__(self, files: Mapping[str, str | Path]) -> None:
        self.paths = {part: Path(path) for part, path in files.items()}
        self._open: dict[str, Any] = {}
        self._channels: int | None = None

    @property
    def channels(self) -> int:
        """C. Raises AtlasError unless it is the same in all files."""
        if self._channels is None:
            found = {int(self._features(part).shape[1]) for part in self.paths}
            if len(found) != 1:
                raise AtlasError(
                    f"{', '.join(map(str, self.paths.values()))}: differ in channels: {sorted(found)}"
                )
            self._channels = found.pop()
        return self._channels

    def read(self, image_id: str) -> np.ndarray:
        """(C,H,W) of image CLEVR_<part>_<number>. Raises AtlasError for an image that is in no file."""
        part, number = _place(image_id)
        if part not in self.paths:
            raise AtlasError(f"CLEVR features: image '{image_id}': files: has no '{part}'; add its path")
        features = self._features(part)
        if number >= len(features):
            raise AtlasError(
                f"{self.paths[part]}: features: has {len(features)} images, not '{image_id}'; extract again"
            )
        return np.asarray(features[number])

    def _features(self, part: str) -> Any:
        if part not in self._open:
            import h5py

            path = self.paths[part]
            if not path.exists():
                raise AtlasError(f"{path}: no such file; run 'make paper-check' to see where it comes from")
            try:
                features = h5py.File(path, "r")["features"]
            except (OSError, KeyError):
                raise AtlasError(f"{path}: features: cannot be read; extract the features again") from None
            if features.ndim != 4:
                raise AtlasError(
                    f"{path}: features: shape {features.shape}, expected (images, channels, h, w)"
                )
            self._open[part] = features
        return self._open[part]


def _place(image_id: str) -> tuple[str, int]:
    """('val', 12) of 'CLEVR_val_000012'."""
    pieces = image_id.split("_")
    if len(pieces) < 3 or not pieces[-1].isdigit():
        raise AtlasError(f"CLEVR features: image '{image_id}': is not named CLEVR_<set>_<number>")
    return pieces[-2], int(pieces[-1])
