"""Images as ViLT takes them: both sides multiples of the patch size, values in -1..1, padded in a batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.data.images import image_size, read_rgb
from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus


def fitted(width: int, height: int, shorter: int | None, patch: int) -> tuple[int, int]:
    """(width, height) with the shorter side `shorter`, the longer at most 1333/800 of it (as in ViLT's own
    preprocessing), both multiples of `patch`; without `shorter` only cropped to whole patches.

    >>> fitted(640, 480, 384, 32), fitted(144, 144, None, 16), fitted(2000, 500, 384, 32)
    ((512, 384), (144, 144), (608, 160))
    """
    if shorter is None:
        size = (width, height)
    else:
        scale = shorter / min(width, height)
        longest = int(1333 / 800 * shorter)
        if max(width, height) * scale > longest:
            scale = longest / max(width, height)
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
    out = (size[0] // patch * patch, size[1] // patch * patch)
    if min(out) < patch:
        raise AtlasError(f"image of {width} × {height} pixels: smaller than a patch of {patch}; leave it out")
    return out


class Images:
    """Images of a corpus as uint8 tensors (3,H,W), kept in memory up to `keep_bytes`."""

    def __init__(
        self, corpus: Corpus, patch: int, shorter: int | None = None, keep_bytes: int = 4 << 30
    ) -> None:
        self.corpus, self.patch, self.shorter, self.keep_bytes = corpus, patch, shorter, keep_bytes
        self._kept: dict[str, Tensor] = {}
        self._bytes = 0
        self._shapes: dict[str, tuple[int, int]] = {}

    def get(self, image_id: str) -> Tensor:
        if image_id in self._kept:
            return self._kept[image_id]
        from PIL import Image

        image = read_rgb(self.corpus.image_path(image_id))
        size = fitted(*image.size, self.shorter, self.patch)
        if size != image.size:
            image = image.resize(size, Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8).transpose(2, 0, 1).copy())
        if self._bytes + pixels.nbytes <= self.keep_bytes:
            self._kept[image_id] = pixels
            self._bytes += pixels.nbytes
        return pixels

    def shape(self, image_id: str) -> tuple[int, int]:
        """Rows and columns of patches; the pixels are not read."""
        if image_id not in self._shapes:
            whole = image_size(self.corpus.image_path(image_id))
            width, height = fitted(*whole, self.shorter, self.patch)
            self._shapes[image_id] = (height // self.patch, width // self.patch)
        return self._shapes[image_id]

    def batch(self, image_ids: Sequence[str]) -> dict[str, Tensor]:
        """`pixels_BCHW` float32 in -1..1, padded at the right and bottom; `pixel_mask_BHW` is 1 inside the
        image."""
        items = [self.get(i) for i in image_ids]
        height, width = max(i.shape[1] for i in items), max(i.shape[2] for i in items)
        pixels = torch.zeros(len(items), 3, height, width)
        mask = torch.zeros(len(items), height, width)
        for b, item in enumerate(items):
            pixels[b, :, : item.shape[1], : item.shape[2]] = item.float().div_(127.5).sub_(1)
            mask[b, : item.shape[1], : item.shape[2]] = 1
        return {"pixels_BCHW": pixels, "pixel_mask_BHW": mask}
