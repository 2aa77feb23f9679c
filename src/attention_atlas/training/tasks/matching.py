"""Text-image matching: matching captions and images score higher than mismatched ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.vocabulary import PAD, Vocabulary
from attention_atlas.measures.retrieval import recalls
from attention_atlas.training.by_image import ImageCaptions, padded
from attention_atlas.training.captions import RegionCache, tokens

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile


def hinge(similarity_BB: Tensor, margin: float, hardest: bool) -> Tensor:
    """Triplet loss of a batch with the matching pairs on the diagonal (Faghri et al. 2018, eq. 6): the sum,
    over both directions, of max(0, margin + s(wrong) − s(right)) of each query's hardest negative (or of
    all)."""
    right_B = similarity_BB.diagonal()
    wrong = ~torch.eye(len(similarity_BB), dtype=torch.bool, device=similarity_BB.device)
    loss = similarity_BB.new_zeros(())
    for cost_BB, axis in (
        ((margin + similarity_BB - right_B[:, None]).clamp(min=0), 1),
        ((margin + similarity_BB - right_B[None, :]).clamp(min=0), 0),
    ):
        cost_BB = cost_BB * wrong
        loss = loss + (cost_BB.amax(axis).sum() if hardest else cost_BB.sum())
    return loss


def all_similarities(model: Any, captions: ImageCaptions, block_bytes: int = 16 << 20) -> np.ndarray:
    """Similarity (I,C) of every image and every caption of a split, float32, in blocks of bounded memory.

    Captions are sorted by length to keep padding low; columns are in the order of `captions.examples`.
    """
    device = next(model.parameters()).device
    with torch.no_grad():
        regions = [_images(model, captions, i, device) for i in captions.in_order(64)]
        regions_IND, regions_IN = torch.cat([r for r, _ in regions]), torch.cat([m for _, m in regions])
        order = sorted(range(len(captions)), key=lambda c: (len(captions.ids[c]), c))
        out = np.empty((len(captions.images), len(captions)), np.float32)
        for start in range(0, len(order), 64):
            block = order[start : start + 64]
            ids_CT = padded([captions.ids[c] for c in block]).to(device)
            words_CTD = model.encode_captions(ids_CT)
            # About four tensors of I·C·T·N float32 live at a time.
            per_image = 16 * ids_CT.numel() * regions_IN.shape[1]
            step = max(1, block_bytes // per_image)
            for i in range(0, len(regions_IND), step):
                part = model.similarities(
                    regions_IND[i : i + step], regions_IN[i : i + step], words_CTD, ids_CT != PAD
                )
                out[i : i + step, block] = part.cpu().numpy()
    return out


def _images(model: Any, captions: ImageCaptions, numbers: list[int], device: Any) -> tuple[Tensor, Tensor]:
    batch = captions.regions.batch([captions.images[i] for i in numbers])
    return model.encode_images(batch["features_BND"].to(device)), batch["regions_BN"].to(device)


@dataclass
class MatchingTask:
    """Chosen by `_target_` in conf/train/matching.yaml.

    A batch is `batch_size` images with one caption each, so no negative is a match; each caption is seen once
    per epoch. hardest_from: the step from which only the hardest negative counts (before, all). judged:
    images of `select_on` that a validation ranks (0: all). min_count: rarer words become UNK.
    """

    split: str = "train"
    select_on: str = "val"
    min_count: int = 1
    max_words: int = 50
    batch_size: int = 128
    margin: float = 0.2
    hardest_from: int = 0
    judged: int = 0
    standardise: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: must be at least 2, not {self.batch_size}")
        self.best = ("Rsum", "max")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Vocabulary | None = None) -> None:
        """Read captions and regions; the vocabulary comes from the training split unless given."""
        train, held_out = corpus.some(self.split), corpus.some(self.select_on)
        self.corpus, self.features = corpus, features
        self.vocab = vocab or Vocabulary.build((tokens(e.text) for e in train), self.min_count)
        self.regions = RegionCache(features)
        self.train = self.captions(train)
        if len(self.train.images) < self.batch_size:
            raise AtlasError(
                f"{corpus.root}: split '{self.split}' has {len(self.train.images)} images, fewer than "
                f"batch_size {self.batch_size}; make it smaller"
            )
        judged = self.captions(held_out)
        if self.judged:
            every = max(1, len(judged.images) // self.judged)
            kept = set(judged.images[::every][: self.judged])
            judged = self.captions([e for e in held_out if e.image_id in kept])
        self.held_out = judged

    def captions(self, examples: list[Any]) -> ImageCaptions:
        """Captions of these examples by image, as word ids of the model."""
        return ImageCaptions(examples, self.vocab, self.regions, self.max_words)

    def model_sizes(self) -> dict[str, Any]:
        return {"vocab_size": len(self.vocab), "feature_dim": self.features.dim}

    def start(self, model: Any) -> None:
        """Give the model the mean and standard deviation of each feature over the regions of the training
        images."""
        if self.standardise:
            model.standardise(*self.regions.statistics(self.train.images))

    def save(self, folder: Path) -> None:
        self.vocab.save(folder / "vocab.json")

    def _rounds(self) -> int:
        return max(len(own) for own in self.train.of_image.values())

    def steps_per_epoch(self) -> int:
        return self._rounds() * (len(self.train.images) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        """Rounds over the images in a new order, each round with a different caption of every image."""
        rng = np.random.default_rng([self.seed, epoch])
        turns = {i: rng.permutation(own).tolist() for i, own in self.train.of_image.items()}
        per_round = len(self.train.images) // self.batch_size
        for turn in range(self._rounds()):
            order = rng.permutation(len(self.train.images)).tolist()
            for b in range(per_round):
                number = turn * per_round + b
                if number < start or (number - start) % every:
                    continue
                names = [self.train.images[i] for i in order[b * self.batch_size : (b + 1) * self.batch_size]]
                rows = [self.train.ids[turns[name][turn % len(turns[name])]] for name in names]
                yield {"ids_BT": padded(rows), **self.regions.batch(names)}

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        ids_BT = batch["ids_BT"]
        similarity_BB = model.similarities(
            model.encode_images(batch["features_BND"]),
            batch["regions_BN"],
            model.encode_captions(ids_BT),
            ids_BT != PAD,
        )
        yield "all", hinge(similarity_BB, self.margin, step >= self.hardest_from)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Recalls in per cent, in both directions, over the judged images."""
        captions = self.held_out
        numbers, _ = recalls(all_similarities(model, captions), image_of(captions))
        return {k: v for k, v in numbers.items() if not k.endswith("chance")}


def image_of(captions: ImageCaptions) -> list[int]:
    """Number of the image of each caption."""
    number = {name: i for i, name in enumerate(captions.images)}
    return [number[e.image_id] for e in captions.examples]
