"""Batches of regions and words for captioning models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.errors import AtlasError
from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.language.words import words
from attention_atlas.training.batches import cut, padded_ids, pooled

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example
    from attention_atlas.regions.features_file import FeaturesFile


def tokens(text: str) -> list[str]:
    """The words a model sees: lower-case spaCy words."""
    return [word.text.lower() for word in words(text)]


class RegionCache:
    """Regions of images as tensors, read once and kept in half precision (2,000 images of 36 × 256: 37 MB).

    `keep_bytes` limits the cache; regions beyond it are read from the file each time.
    """

    def __init__(self, features: FeaturesFile, keep_bytes: int = 8 << 30) -> None:
        self.features = features
        self.keep_bytes = keep_bytes
        self._kept: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def get(self, image_id: str) -> tuple[Tensor, Tensor, Tensor]:
        """features (N,D) float16, boxes (N,4) float32 relative to the image within 0..1, valid (N,)."""
        if image_id in self._kept:
            return self._kept[image_id]
        regions = self.features.read(image_id)
        if not np.isfinite(regions.features).all():
            raise AtlasError(
                f"features: image '{image_id}': features are not finite; run the features stage again"
            )
        if regions.count < 1:
            raise AtlasError(f"features: image '{image_id}': has no region; leave the image out")
        width, height = regions.size
        boxes = regions.boxes / np.array([width, height, width, height], np.float32)
        item = (
            torch.from_numpy(np.ascontiguousarray(regions.features, np.float16)),
            torch.from_numpy(np.clip(boxes, 0, 1).astype(np.float32)),
            torch.arange(len(regions.boxes)) < regions.count,
        )
        if sum(t.nbytes for t in item) * (len(self._kept) + 1) <= self.keep_bytes:
            self._kept[image_id] = item
        return item

    def statistics(self, image_ids: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation (D,) of each feature over the regions of these images."""
        count, total_D, square_D = 0, torch.zeros(1).double(), torch.zeros(1).double()
        for names in cut(image_ids, 256):
            batch = self.batch(names)
            real_XD = batch["features_BND"][batch["regions_BN"]].double()
            count += len(real_XD)
            total_D, square_D = total_D + real_XD.sum(0), square_D + (real_XD * real_XD).sum(0)
        mean_D = total_D / count
        return mean_D.float(), (square_D / count - mean_D**2).clamp(min=0).sqrt().float()

    def batch(self, image_ids: Sequence[str]) -> dict[str, Tensor]:
        """`features_BND` float32, `boxes_BN4`, `regions_BN` bool."""
        features, boxes, valid = zip(*(self.get(i) for i in image_ids))
        return {
            "features_BND": torch.stack(features).float(),
            "boxes_BN4": torch.stack(boxes),
            "regions_BN": torch.stack(valid),
        }


class Captions:
    """Examples of one split with their word ids; `max_words` cuts longer texts."""

    def __init__(
        self, examples: Sequence[Example], vocab: Vocabulary, regions: RegionCache, max_words: int
    ) -> None:
        if not examples:
            raise AtlasError("corpus: no example in this split; check data and split names")
        self.examples = list(examples)
        self.regions = regions
        self.ids = [vocab.encode(tokens(e.text)[:max_words]) for e in self.examples]
        for example in self.examples:
            if example.image_id not in regions.features:
                raise AtlasError(
                    f"features: image '{example.image_id}' is missing; run the features stage again"
                )

    def __len__(self) -> int:
        return len(self.examples)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """A padded batch with `ids_BT` (BOS, words, EOS, PAD...) and the images' regions."""
        ids_BT = padded_ids([[BOS, *self.ids[i], EOS] for i in indices])
        return {"ids_BT": ids_BT, **self.regions.batch([self.examples[i].image_id for i in indices])}

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch as lists of indices of captions of similar length."""
        return pooled(len(self), batch_size, [seed, epoch], lambda i: len(self.ids[i]))

    def in_order(self, batch_size: int) -> list[list[int]]:
        return cut(range(len(self)), batch_size)
