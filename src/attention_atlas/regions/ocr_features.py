"""Detector features of the boxes of OCR words: an archive with one file per image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attention_atlas.errors import AtlasError


class OcrFeatures:
    """`<folder>/<image_id>.npy`, (R, D) floats: row r describes entry r of the image's `ocr_info`.

    M4C (Hu et al. 2020) uses Faster R-CNN's features of each box, D = 2048. Files are read on demand and
    never unpickled. Raises AtlasError for a folder without such files.
    """

    def __init__(self, folder: str | Path, field: str = "ocr_features") -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise AtlasError(
                f"{field}: {folder}: no such folder; run 'make paper-check' to see where it comes from"
            )
        first = next(self.folder.glob("*.npy"), None)
        if first is None:
            raise AtlasError(f"{field}: {folder}: has no .npy file; give one <image_id>.npy per image")
        self.dim = self._load(first).shape[1]

    def get(self, image_id: str, rows: Sequence[int]) -> np.ndarray:
        """(len(rows), D) float32. Raises AtlasError for a missing or damaged file, or a missing row."""
        if not rows:
            return np.zeros((0, self.dim), np.float32)
        path = self.folder / f"{image_id}.npy"
        table = self._load(path)
        if table.shape[1] != self.dim:
            raise AtlasError(
                f"{path}: has {table.shape[1]} columns, other files {self.dim}; extract the features again"
            )
        if min(rows) < 0:
            raise AtlasError(
                f"{path}: the words of '{image_id}' have no row numbers; read them with ocr=rosetta"
            )
        if max(rows) >= len(table):
            raise AtlasError(
                f"{path}: has {len(table)} rows, but the image has a word {max(rows)}; use the "
                "features of the same OCR"
            )
        found = table[list(rows)].astype(np.float32)
        if not np.isfinite(found).all():
            raise AtlasError(f"{path}: features are not finite; extract them again")
        return found

    def _load(self, path: Path) -> np.ndarray:
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise AtlasError(f"{path}: no such file; add it, or remove its questions") from None
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or ["damaged"])[0]
            raise AtlasError(f"{path}: cannot be read ({first}); save it as a plain array") from None
        if table.ndim != 2 or not np.issubdtype(table.dtype, np.floating):
            raise AtlasError(
                f"{path}: is {table.dtype} of shape {table.shape}; expected floats (rows, features)"
            )
        return table
