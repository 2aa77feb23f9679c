"""Texts in batches of whole images, so that an image is encoded once for all its texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.language.vocabulary import BOS, EOS, Vocabulary
from attention_atlas.training.batches import cut, padded_ids
from attention_atlas.training.captions import Captions, RegionCache

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Example


SENTENCE_ENDS = (".", "!", "?")


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
    """Batches of images with some of their texts, others in every epoch: the next `texts` of each image or,
    in the first `sentence_epochs` epochs, as many `sentences` from all its texts, each on its own.

    Rows are the texts, then the sentences; a batch is a list of rows.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        vocab: Vocabulary,
        regions: RegionCache,
        max_words: int,
        texts: int,
        sentence_epochs: int = 0,
        sentences: int = 0,
    ) -> None:
        super().__init__(examples, vocab, regions, max_words)
        self.texts, self.sentence_epochs, self.sentences = texts, sentence_epochs, sentences
        self.image = [e.image_id for e in self.examples]
        self.texts_of: dict[str, list[int]] = {}
        self.sentences_of: dict[str, list[int]] = {}
        ends = set(vocab.encode(end for end in SENTENCE_ENDS if end in vocab))
        for row, name in enumerate(self.image[:]):
            self.texts_of.setdefault(name, []).append(row)
            for sentence in split_after(self.ids[row], ends) if sentence_epochs else ():
                self.sentences_of.setdefault(name, []).append(len(self.ids))
                self.ids.append(sentence)
                self.image.append(name)

    def batch(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """`ids_BT`, `image_B` and the regions of each image once."""
        names = list(dict.fromkeys(self.image[row] for row in indices))
        image_B = torch.tensor([names.index(self.image[row]) for row in indices])
        return {
            "ids_BT": padded([self.ids[r] for r in indices]),
            "image_B": image_B,
            **self.regions.batch(names),
        }

    def order(self, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
        """A shuffled epoch of all images, `batch_size` a batch."""
        rng = np.random.default_rng([seed, epoch])
        names = list(self.texts_of)
        shuffled = [names[i] for i in rng.permutation(len(names))]
        if epoch < self.sentence_epochs:
            own = {n: rng.permutation(self.sentences_of[n])[: self.sentences].tolist() for n in names}
        else:
            own = {n: self._turn(self.texts_of[n], epoch - self.sentence_epochs) for n in names}
        return [[row for name in part for row in own[name]] for part in cut(shuffled, batch_size)]

    def _turn(self, rows: list[int], epoch: int) -> list[int]:
        count = min(self.texts, len(rows))
        return [rows[(epoch * count + i) % len(rows)] for i in range(count)]


def per_text(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch without `image_B`: the regions of each text's own image."""
    image_B = batch["image_B"]
    rest = {key: value for key, value in batch.items() if key not in ("ids_BT", "image_B")}
    return {"ids_BT": batch["ids_BT"], **{key: value[image_B] for key, value in rest.items()}}


def split_after(ids: Sequence[int], ends: set[int]) -> Iterator[list[int]]:
    """The parts of `ids`, each up to and including one of `ends`; the last part may have none."""
    start = 0
    for i, number in enumerate(ids, start=1):
        if number in ends or i == len(ids):
            yield list(ids[start:i])
            start = i
