"""Images with their captions, in batches in which each image occurs at most once.

Axes: B pairs, T words, S pixels per side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.training.batches import padded_ids
from attention_atlas.training.captions import tokens

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example


class SquareImages:
    """Images of a corpus as uint8 (3,S,S). `Example.extra["crop"]` ([x1,y1,x2,y2]) is cut out, else the
    centre square. Images are kept in memory up to `keep_bytes`; the rest are read each time.

    enlarged: length of the shorter edge at which the whole image (or its crop) is kept, so that squares can
    be cut at different places; 0: only the square itself is kept.
    """

    def __init__(self, corpus: Corpus, size: int, keep_bytes: int = 8 << 30, enlarged: int = 0) -> None:
        if 0 < enlarged < size:
            raise ConfigError(f"enlarged: {enlarged} is less than size {size}; 0 for none")
        self.corpus, self.size, self.enlarged = corpus, size, enlarged
        self._room = keep_bytes
        self._kept: dict[str, Tensor] = {}

    def get(self, example: Example, place: tuple[float, float] = (0.5, 0.5)) -> Tensor:
        """The square at `place`: (down, right), each in 0..1."""
        kept = self._whole(example)
        y, x = (round(p * (n - self.size)) for p, n in zip(place, kept.shape[1:]))
        return kept[:, y : y + self.size, x : x + self.size]

    def _whole(self, example: Example) -> Tensor:
        name = example.image_id
        if name in self._kept:
            return self._kept[name]
        pixels = self._read(name, example.extra.get("crop"))
        if pixels.numel() <= self._room:
            self._room -= pixels.numel()
            self._kept[name] = pixels
        return pixels

    def _read(self, name: str, crop: Sequence[int] | None) -> Tensor:
        from PIL import Image

        image = read_rgb(self.corpus.image_path(name))
        side = min(image.size)
        if crop is None and not self.enlarged:
            x, y = (image.width - side) // 2, (image.height - side) // 2
            crop = [x, y, x + side, y + side]
        if crop is not None:
            image = image.crop((crop[0], crop[1], crop[2], crop[3]))
            side = min(image.size)
        shorter = self.enlarged or self.size
        to = (self.size, self.size) if not self.enlarged else _scaled(image.size, shorter / side)
        image = image.resize(to, Image.Resampling.BOX)
        return torch.from_numpy(np.array(image, dtype=np.uint8).transpose(2, 0, 1).copy())

    def batch(
        self,
        examples: Sequence[Example],
        mirrored_B: Sequence[bool] | None = None,
        places_B2: Sequence[tuple[float, float]] | None = None,
    ) -> Tensor:
        """(B,3,S,S) float32 in -1..1."""
        places = places_B2 or [(0.5, 0.5)] * len(examples)
        pixels = torch.stack([self.get(e, p) for e, p in zip(examples, places)])
        pixels = pixels.float().div_(127.5).sub_(1)
        for b, turned in enumerate(mirrored_B or ()):
            if turned:
                pixels[b] = pixels[b].flip(-1)
        return pixels


def _scaled(size: tuple[int, int], factor: float) -> tuple[int, int]:
    return round(size[0] * factor), round(size[1] * factor)


def word_ids(vocab: Vocabulary, text: str, max_words: int) -> list[int]:
    """Ids of the first `max_words` words of a caption."""
    return vocab.encode(tokens(text)[:max_words])


class Pairs:
    """The examples of a split. mirror: flip half of the images horizontally. by_category: images of one
    category count as one class (`class_B`), so they are not negatives for each other's captions. rounds:
    captions per image and epoch (0: all); the next epoch takes others. enlarged: training images are
    random square crops of images with this shorter edge (0: the whole squares)."""

    def __init__(
        self,
        corpus: Corpus,
        split: str,
        vocab: Vocabulary,
        size: int,
        max_words: int,
        mirror: bool = True,
        by_category: bool = False,
        images: SquareImages | None = None,
        rounds: int = 0,
        enlarged: int = 0,
    ) -> None:
        self.examples = corpus.some(split)
        self.split, self.wanted_rounds = split, rounds
        self.corpus, self.mirror, self.by_category = corpus, mirror, by_category
        self.pixels = images or SquareImages(corpus, size, enlarged=enlarged)
        self.ids = [word_ids(vocab, e.text, max_words) for e in self.examples]
        self.of_image: dict[str, list[int]] = {}
        for i, example in enumerate(self.examples):
            self.of_image.setdefault(example.image_id, []).append(i)
        self.images = list(self.of_image)
        kinds = sorted({corpus.scenes[name].category for name in self.images})
        self._class = {
            name: kinds.index(corpus.scenes[name].category) if by_category else i
            for i, name in enumerate(self.images)
        }

    def batch(
        self,
        numbers: Sequence[int],
        mirrored_B: Sequence[bool] | None = None,
        places_B2: Sequence[tuple[float, float]] | None = None,
    ) -> dict[str, Tensor]:
        """`ids_BT` (words, PAD...; no BOS or EOS, as AttnGAN's text encoder reads them), `pixels_BCSS`,
        `class_B` of the examples with these numbers."""
        chosen = [self.examples[i] for i in numbers]
        return {
            "ids_BT": padded_ids([self.ids[i] for i in numbers]),
            "pixels_BCSS": self.pixels.batch(chosen, mirrored_B, places_B2),
            "class_B": torch.tensor([self._class[e.image_id] for e in chosen]),
        }

    def rounds(self) -> int:
        return self.wanted_rounds or max(map(len, self.of_image.values()))

    def steps(self, batch_size: int) -> int:
        """Batches of an epoch. Raises AtlasError if there are fewer images than a batch needs, or if all
        are of one class, which leaves no negatives."""
        if self.by_category and len(set(self._class.values())) < 2:
            raise AtlasError(
                f"{self.corpus.root}: all images of split '{self.split}' have the same category, so none "
                "is a wrong answer to a caption and the DAMSM loss is 0; set by_category: false"
            )
        if len(self.images) < batch_size:
            raise AtlasError(
                f"{self.corpus.root}: {len(self.images)} images to train on, fewer than batch_size "
                f"{batch_size}; make it smaller"
            )
        return self.rounds() * (len(self.images) // batch_size)

    def shuffled(
        self, batch_size: int, seed: int, epoch: int, start: int = 0, every: int = 1
    ) -> Iterator[dict[str, Tensor]]:
        """Rounds over the images in a new order, each with a different caption of every image. The order
        depends only on seed and epoch."""
        rng = np.random.default_rng([seed, epoch])
        turns = {name: rng.permutation(own).tolist() for name, own in self.of_image.items()}
        per_round = self.steps(batch_size) // self.rounds()
        for turn in range(self.rounds()):
            order = rng.permutation(len(self.images)).tolist()
            turned = (rng.random(len(order)) < 0.5) & self.mirror
            where = rng.random((len(order), 2)).tolist() if self.pixels.enlarged else None
            for b in range(per_round):
                number = turn * per_round + b
                if number < start or (number - start) % every:
                    continue
                places = order[b * batch_size : (b + 1) * batch_size]
                own = [turns[self.images[i]] for i in places]
                numbers = [captions[turn % len(captions)] for captions in own]
                cut = None if where is None else [(where[i][0], where[i][1]) for i in places]
                yield self.batch(numbers, [bool(turned[i]) for i in places], cut)

    def first_captions(self, judged: int = 0) -> list[int]:
        """Numbers of the first caption of each image; `judged` of them, evenly spread (0: all)."""
        numbers = [own[0] for own in self.of_image.values()]
        return numbers[:: max(1, len(numbers) // judged)][:judged] if judged else numbers
