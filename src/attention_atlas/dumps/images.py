"""Captioning models on an image other than the caption's: does the image change how they attend to
text?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attention_atlas.dumps.captioning import CaptioningDump
from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.training.captions import RegionCache
from attention_atlas.training.tasks.image_captions import Deranged

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile

IMAGES = ("own", "shuffled", "blank")


@dataclass
class ImageDump(CaptioningDump):
    """image: own; shuffled: another image of the split, each once; blank: all features 0, each box the
    whole image. The region axis is always that of the caption's own image."""

    image: str = "own"
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.image not in IMAGES:
            raise ConfigError(f"image: '{self.image}'{did_you_mean(self.image, IMAGES)}")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Any, config: dict[str, Any]) -> None:
        super().prepare(corpus, features, vocab, config)
        regions = self.captions.regions
        if self.image == "shuffled":
            images = sorted({e.image_id for e in self.captions.examples})
            self.captions.regions = Deranged(regions, images, self.seed)
        elif self.image == "blank":
            self.captions.regions = Blank(regions.features)


class Blank(RegionCache):
    """A RegionCache in which every image is blank: the same number of regions, without content."""

    def get(self, image_id: str) -> tuple[Tensor, Tensor, Tensor]:
        features, boxes, valid = super().get(image_id)
        whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand_as(boxes)
        return torch.zeros_like(features), whole, valid
