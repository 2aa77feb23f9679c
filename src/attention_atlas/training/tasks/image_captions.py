"""Caption an image in one sentence: cross-entropy on all its captions; a control trains on wrong images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.training.by_image import ImageCaptions
from attention_atlas.training.captions import RegionCache
from attention_atlas.training.tasks.captioning import CaptioningTask

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile

IMAGES = ("own", "shuffled")


@dataclass
class ImageCaptioningTask(CaptioningTask):
    """CaptioningTask for several captions per image; `batch_size` counts images.

    images: own, or shuffled: in training each image is replaced by another one, so words and images keep
    their distributions but are unrelated. Attention that such a model learns is not caused by vision.
    """

    max_words: int = 16
    images: str = "own"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.images not in IMAGES:
            raise ConfigError(f"images: '{self.images}' is not one of {', '.join(IMAGES)}")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Vocabulary | None = None) -> None:
        super().prepare(corpus, features, vocab)
        regions = RegionCache(features)
        self.train: ImageCaptions = ImageCaptions(self.train.examples, self.vocab, regions, self.max_words)
        self.held_out: ImageCaptions = ImageCaptions(
            self.held_out.examples, self.vocab, regions, self.max_words
        )
        if self.images == "shuffled":
            self.train.regions = Deranged(regions, self.train.images, self.seed)


class Deranged(RegionCache):
    """A RegionCache that returns another image's regions: that of the next image in a shuffled ring."""

    def __init__(self, regions: RegionCache, images: list[str], seed: int) -> None:
        super().__init__(regions.features)
        self.other = ring(images, seed)

    def get(self, image_id: str):  # type: ignore[no-untyped-def]
        return super().get(self.other.get(image_id, image_id))


def ring(images: list[str], seed: int) -> dict[str, str]:
    """Each image -> another one (itself only if it is alone), every image once."""
    order = [images[i] for i in np.random.default_rng(seed).permutation(len(images))]
    return dict(zip(order, order[1:] + order[:1]))
