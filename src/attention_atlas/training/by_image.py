"""Captions in batches of whole images, so that an image is encoded once for all its captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.training.batches import cut, padded_ids
from attention_atlas.training.captions import Captions, RegionCache

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example


def padded(rows: Sequence[Sequence[int]]) -> Tensor:
    """`ids_BT`: BOS, words, EOS, PAD..."""
    return padded_ids([[BOS, *row, EOS] for row in rows])


class ImageCaptions(Captions):
    """Captions whose batches are lists of image numbers; `images[i]` is the id of image i."""

    def __init__(
        self, examples: Sequence[Example], vocab: Vocabulary, regions: RegionCache, max_words: int
    ) -> None:
        super().__init__(examples, vocab, regions, max_words)
        self.of_image: dict[str, list[int]] = {}
        for i, example in enumerate(self.examples):
            self.of_image.setdefault(example.image_id, []).append(i)
        self.images = list(self.of_image)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """All captions of the images `indices`, image by image: `ids_BT`, `image_B`, the images' regions."""
        names = [self.images[i] for i in indices]
        rows = [self.ids[e] for name in names for e in self.of_image[name]]
        image_B = [k for k, name in enumerate(names) for _ in self.of_image[name]]
        return {"ids_BT": padded(rows), "image_B": torch.tensor(image_B), **self.regions.batch(names)}

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch as lists of image numbers, `batch_size` images each. Captions are about equally
        long, so they are not sorted by length."""
        return cut(np.random.default_rng([seed, epoch]).permutation(len(self.images)).tolist(), batch_size)

    def in_order(self, batch_size: int) -> list[list[int]]:
        return cut(range(len(self.images)), batch_size)
