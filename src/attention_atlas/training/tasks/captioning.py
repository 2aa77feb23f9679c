"""Describe an image: cross-entropy on paragraphs, judged by the CIDEr of greedy captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attention_atlas.data.corpus import read_corpus
from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import Vocabulary
from attention_atlas.models.base import CaptionModel, caption_loss
from attention_atlas.models.search import generate
from attention_atlas.models.standardise import Standardise
from attention_atlas.training.by_image import TurningTexts, per_text
from attention_atlas.training.captions import Captions, RegionCache, tokens

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.regions.features_file import FeaturesFile

FITTED = 500  # training images to which initial weights are adapted


@dataclass
class CaptioningTask:
    """Chosen by `_target_` in conf/train/captioning.yaml.

    split: the training data, e.g. train+extra. min_count: rarer words become UNK. max_words: texts are
    truncated to this length. select_on: val, or test as in "Attention as Grounding" (the choice of checkpoint
    has then seen the test set). judged: number of captions generated per validation (0: all).
    texts: 0 for batches of `batch_size` texts and epochs over all of them, or the number of texts of each
    image in an epoch; the next epoch takes the next ones, and a batch has `batch_size` images.
    first, first_epochs: with `texts`, the file of other texts about the images, such as captions ("": none),
    and the number of epochs at the start that train on them.
    """

    split: str = "train"
    min_count: int = 2
    max_words: int = 150
    batch_size: int = 32
    select_on: str = "val"
    judged: int = 0
    texts: int = 0
    first: str = ""
    first_epochs: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.select_on not in ("val", "test"):
            raise ConfigError(f"select_on: must be val or test, not '{self.select_on}'")
        if self.first and not self.texts:
            raise ConfigError("first: needs texts of at least 1")
        if self.batch_size < 1:
            raise ConfigError(f"batch_size: must be at least 1, not {self.batch_size}")
        self.best = ("cider", "max")

    def prepare(self, corpus: Corpus, features: FeaturesFile, vocab: Vocabulary | None = None) -> None:
        """Read the texts, build the vocabulary of the training split (unless one is given)."""
        train, held_out = corpus.some(self.split), corpus.some(self.select_on)
        first = (
            read_corpus(corpus.root, self.first).some(self.split) if self.first and self.first_epochs else []
        )
        self.vocab = vocab or Vocabulary.build((tokens(e.text) for e in [*train, *first]), self.min_count)
        self.feature_dim = features.dim
        regions = RegionCache(features)
        about = (self.vocab, regions, self.max_words)
        self.train: Captions = (
            TurningTexts(train, *about, self.texts, first, self.first_epochs if first else 0)
            if self.texts
            else Captions(train, *about)
        )
        self.held_out = Captions(held_out, self.vocab, regions, self.max_words)

    def model_sizes(self) -> dict[str, int]:
        """What a model's constructor needs to know about the data."""
        return {"vocab_size": len(self.vocab), "feature_dim": self.feature_dim}

    def start(self, model: CaptionModel) -> None:
        """Give a model that standardises features their statistics over the training images."""
        standardise = getattr(model, "standardise", None)
        if isinstance(standardise, Standardise):
            images = list(dict.fromkeys(e.image_id for e in self.train.examples))
            standardise.fit(*self.train.regions.statistics(images))
            model.fit(self.train.regions.batch(images[:FITTED]))

    def save(self, folder: Path) -> None:
        """Write what a run folder needs in addition to the weights: vocab.json."""
        self.vocab.save(folder / "vocab.json")

    def steps_per_epoch(self) -> int:
        return len(self.train.order(self.batch_size, self.seed, 0))

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        for indices in self.train.order(self.batch_size, self.seed, epoch)[start::every]:
            yield self.train.batch(indices)

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        if "image_B" in batch and not getattr(getattr(model, "module", model), "shares_images", False):
            batch = per_text(batch)
        yield "all", caption_loss(model(batch), batch)

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Loss per word on the whole held-out split and CIDEr of greedy captions on `judged` examples."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for indices in self.held_out.in_order(self.batch_size):
            batch = {k: v.to(device) for k, v in self.held_out.batch(indices).items()}
            number = int((batch["ids_BT"][:, 1:] != 0).sum())
            total += float(caption_loss(model(batch), batch)) * number
            count += number
        return {"loss": total / count, "cider": self._cider(model, device)}

    def _cider(self, model: nn.Module, device: torch.device) -> float:
        from attention_atlas.measures.text.cider import cider

        references: dict[str, list[str]] = {}
        for example in self.held_out.examples:
            references.setdefault(example.image_id, []).append(" ".join(tokens(example.text)))
        images = sorted(references)[: self.judged or None]
        hypotheses: dict[str, str] = {}
        for start in range(0, len(images), 64):
            part = images[start : start + 64]
            batch = {k: v.to(device) for k, v in self.held_out.regions.batch(part).items()}
            captions = generate(model, batch, beam=1, max_words=self.max_words)
            for image_id, caption in zip(part, captions):
                hypotheses[image_id] = " ".join(self.vocab.decode(caption.ids))
        # Document frequencies come from the whole split, so that `judged` does not change a caption's score.
        return 100 * cider(references, hypotheses)[0]
