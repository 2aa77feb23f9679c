"""Pre-training of the DAMSM: match images and captions by regions and words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import PAD, Vocabulary
from attention_atlas.measures.generation import r_precision
from attention_atlas.training.captions import tokens
from attention_atlas.training.pairs import Pairs

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus


@dataclass(kw_only=True)
class PairsTask:
    """A task on images with captions. size: side of the images; mirror, by_category, rounds, enlarged:
    see training/pairs.py; candidates: number for the R-precision of a validation."""

    split: str = "train"
    select_on: str = "val"
    max_words: int = 18
    size: int
    batch_size: int
    mirror: bool = True
    by_category: bool = False
    rounds: int = 0
    enlarged: int = 0
    candidates: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: must be at least 2, not {self.batch_size}")

    def read(self, corpus: Corpus, vocab: Vocabulary) -> None:
        self.corpus, self.vocab = corpus, vocab
        given = (vocab, self.size, self.max_words, self.mirror, self.by_category)
        self.train = Pairs(corpus, self.split, *given, rounds=self.rounds, enlarged=self.enlarged)
        self.held_out = Pairs(corpus, self.select_on, *given, images=self.train.pixels)
        self.train.steps(self.batch_size)

    def save(self, folder: Path) -> None:
        self.vocab.save(folder / "vocab.json")

    def steps_per_epoch(self) -> int:
        return self.train.steps(self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        return self.train.shuffled(self.batch_size, self.seed, epoch, start, every)

    def precision(self, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        """R-precision of images by their sentences, in per cent, and its chance level."""
        image_ND, text_ND = (np.concatenate(x) for x in zip(*found))
        hits, chance = r_precision(image_ND, text_ND, self.candidates)
        return {"R-precision": 100 * float(hits.mean()), "chance": 100 * chance}


@dataclass(kw_only=True)
class DamsmTask(PairsTask):
    """Chosen by `_target_` in conf/train/damsm.yaml. The R-precision selects the checkpoint. min_count: rarer
    words become UNK."""

    min_count: int = 1
    size: int = 32
    batch_size: int = 48

    def __post_init__(self) -> None:
        super().__post_init__()
        self.best = ("R-precision", "max")

    def prepare(self, corpus: Corpus, features: Any = None, vocab: Vocabulary | None = None) -> None:
        texts = (tokens(e.text) for e in corpus.split(self.split))
        self.read(corpus, vocab or Vocabulary.build(texts, self.min_count))

    def model_sizes(self) -> dict[str, Any]:
        return {"vocab_size": len(self.vocab)}

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        words_BTD, sentence_BD = model.text(batch["ids_BT"])
        regions_BND, whole_BD = model.image(batch["pixels_BCSS"])
        real_BT = batch["ids_BT"] != PAD
        word, sentence = model.losses(
            regions_BND, whole_BD, words_BTD, sentence_BD, real_BT, batch["class_B"]
        )
        yield "all", word + sentence

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """R-precision of real images."""
        first = self.held_out.first_captions()
        return self.precision([embeddings(model, self.held_out.batch(n)) for n in blocks(first)])


def blocks(numbers: list[int], size: int = 64) -> Iterator[list[int]]:
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]


def embeddings(model: Any, batch: dict[str, Tensor]) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (B,D) of whole images and of sentences by a DAMSM."""
    device = next(model.parameters()).device
    _, whole_BD = model.image(batch["pixels_BCSS"].to(device))
    _, sentence_BD = model.text(batch["ids_BT"].to(device))
    return whole_BD.float().cpu().numpy(), sentence_BD.float().cpu().numpy()
