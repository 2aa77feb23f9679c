"""Texts in batches of whole images, so that an image is encoded once for all its texts."""

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


class TurningTexts(Captions):
    """Batches of images with some of their texts, which change every epoch: the next `texts` of each image
    or, in the first `first_epochs` epochs, all its texts in `first`, e.g. captions.

    Rows are the examples, then those of `first`; a batch is a list of rows.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocab: Vocabulary,
        regions: RegionCache,
        max_words: int,
        texts: int,
        first: Sequence[Example] = (),
        first_epochs: int = 0,
    ) -> None:
        images = {example.image_id for example in examples}
        known = [example for example in first if example.image_id in images]
        super().__init__([*examples, *known], vocab, regions, max_words)
        self.texts, self.first_epochs = texts, first_epochs
        self.texts_of: dict[str, list[int]] = {}
        self.first_of: dict[str, list[int]] = {}
        for row, example in enumerate(self.examples):
            own = self.texts_of if row < len(examples) else self.first_of
            own.setdefault(example.image_id, []).append(row)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`ids_BT`, `image_B` and the regions of each image once."""
        images = [self.examples[row].image_id for row in indices]
        names = list(dict.fromkeys(images))
        return {
            "ids_BT": padded([self.ids[row] for row in indices]),
            "image_B": torch.tensor([names.index(image) for image in images]),
            **self.regions.batch(names),
        }

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch of all images, `batch_size` a batch."""
        names = list(self.texts_of)
        shuffled = [names[i] for i in np.random.default_rng([seed, epoch]).permutation(len(names))]
        return [
            [row for name in part for row in self._turn(name, epoch)] for part in cut(shuffled, batch_size)
        ]

    def _turn(self, name: str, epoch: int) -> list[int]:
        if epoch < self.first_epochs and name in self.first_of:
            return self.first_of[name]
        rows = self.texts_of[name]
        count, start = min(self.texts, len(rows)), (epoch - self.first_epochs) * self.texts
        return [rows[(start + i) % len(rows)] for i in range(count)]


def per_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch without `image_B`: the regions of each text's own image."""
    image_B = batch["image_B"]
    rest = {key: value for key, value in batch.items() if key not in ("ids_BT", "image_B")}
    return {"ids_BT": batch["ids_BT"], **{key: value[image_B] for key, value in rest.items()}}
