"""Language modelling: next-token cross-entropy over a byte-level BPE."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError
from attention_atlas.language.subwords import Subwords
from attention_atlas.language.words import words
from attention_atlas.models.text_only import IGNORED
from attention_atlas.training.batches import next_tokens, pooled

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus


@dataclass
class LanguageModelTask:
    """Texts of `split`, lower-cased as captions are; each is <|endoftext|>, its pieces, <|endoftext|>.

    pieces: size of the BPE learned from the training texts. tokenizer: a hub id or folder to load it from
    instead, for a model that continues from published `weights`.
    """

    split: str = "train"
    select_on: str = "val"
    pieces: int = 600
    tokenizer: str = ""
    max_pieces: int = 256
    batch_size: int = 50
    lower: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.max_pieces < 2:
            raise ConfigError("batch_size must be at least 1 and max_pieces at least 2")
        self.best = ("loss", "min")
        # A model with its own tokenizer has weights too.
        self.continues = bool(self.tokenizer)

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        texts = {
            name: [self._plain(e.text) for e in corpus.some(name)] for name in (self.split, self.select_on)
        }
        if self.tokenizer:
            self.subwords = Subwords.pretrained(self.tokenizer)
        else:
            self.subwords = Subwords.train(texts[self.split], self.pieces)
        self.rows = [self._row(t) for t in texts[self.split]]
        self.held_out = [self._row(t) for t in texts[self.select_on]]
        self.held_out_words = sum(len(words(t)) for t in texts[self.select_on])

    def _plain(self, text: str) -> str:
        return text.lower() if self.lower else text

    def _row(self, text: str) -> list[int]:
        return [self.subwords.end, *self.subwords.encode(text)[0][: self.max_pieces], self.subwords.end]

    def model_sizes(self) -> dict[str, int]:
        return {"pieces": len(self.subwords)}

    def save(self, folder: Path) -> None:
        self.subwords.save(folder / "subwords.json")

    def order(self, epoch: int) -> list[list[int]]:
        """A shuffled epoch: lists of row numbers of similar length, the lists shuffled."""
        return pooled(len(self.rows), self.batch_size, [self.seed, epoch], lambda i: len(self.rows[i]))

    def steps_per_epoch(self) -> int:
        return len(self.order(0))

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        for indices in self.order(epoch)[start::every]:
            yield next_tokens([self.rows[i] for i in indices], self.subwords.end)

    def losses(self, model: nn.Module, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", loss_of(model, batch)

    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy per piece, and perplexity per word, which does not depend on the tokenizer."""
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for start in range(0, len(self.held_out), self.batch_size):
            batch = next_tokens(self.held_out[start : start + self.batch_size], self.subwords.end)
            number = int((batch["labels_BT"] != IGNORED).sum())
            total += float(loss_of(model, {k: v.to(device) for k, v in batch.items()})) * number
            count += number
        ends = len(self.held_out)
        return {"loss": total / count, "word_perplexity": float(np.exp(total / (self.held_out_words + ends)))}


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(
        model(batch["ids_BT"]).flatten(0, 1), batch["labels_BT"].flatten(), ignore_index=IGNORED
    )
