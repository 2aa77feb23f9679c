"""Text-only models, teacher-forced on the same captions: row i generates piece i+1, as in a captioner's
decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from attention_atlas.capture.groups import Groups
from attention_atlas.dumps.batches import DumpBatch, Planned
from attention_atlas.errors import ConfigError
from attention_atlas.language.subwords import END_OF_TEXT, piece_words
from attention_atlas.language.words import words
from attention_atlas.recording import Axis

if TYPE_CHECKING:
    from torch import Tensor, nn

    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.language.subwords import Subwords


@dataclass
class TextOnlyDump(Planned):
    """split, examples, batch_size: as in CaptioningDump. Axes: target [pieces, end], source [end, pieces]
    with the end-of-text marker where a captioner has EOS and BOS, so that rows and keys correspond. lower:
    texts are lower-cased, as captioners see them."""

    split: str = "test"
    examples: int = 0
    batch_size: int = 32
    lower: bool = True
    kinds: dict[str, tuple[str, str]] = field(default_factory=lambda: {"decoder_self": ("target", "source")})
    groups: dict[str, list[str]] = field(default_factory=lambda: {"source": ["bos", "special", "text"]})

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.examples < 0:
            raise ConfigError("dump: batch_size must be at least 1 and examples at least 0")

    def prepare(self, corpus: Corpus, features: Any, vocab: Subwords, config: dict[str, Any]) -> None:
        chosen = sorted(corpus.some(self.split), key=lambda e: e.id)[: self.examples or None]
        self.end = vocab.end
        self.coded = {e.id: self._coded(e, vocab) for e in chosen}

    def _coded(self, example: Example, vocab: Subwords) -> tuple[list[int], dict[str, Axis]]:
        # Some letters change their length when lower-cased, so words are located in the encoded text.
        text = example.text.lower() if self.lower else example.text
        ids, pieces, offsets = vocab.encode(text)
        word = piece_words(text, offsets, words(text))
        role = ["text" if w >= 0 else "special" for w in word]
        return ids, {
            "target": Axis([*pieces, END_OF_TEXT], [*role, "eos"], [*word, -1]),
            "source": Axis([END_OF_TEXT, *pieces], ["bos", *role], [-1, *word]),
        }

    def plan(self) -> list[list[str]]:
        order = sorted(self.coded, key=lambda i: (len(self.coded[i][0]), i))
        return [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]

    def batch(self, ids: list[str]) -> DumpBatch:
        longest = max(len(self.coded[i][0]) for i in ids) + 1
        ids_BT = torch.full((len(ids), longest), self.end)
        for b, i in enumerate(ids):
            coded = self.coded[i][0]
            ids_BT[b, 1 : len(coded) + 1] = torch.tensor(coded)
        axes = [self.coded[i][1] for i in ids]
        return DumpBatch(ids, {"ids_BT": ids_BT}, axes, {"target": longest, "source": longest})

    def group(self, batch: DumpBatch, axis: str) -> Groups:
        """Roles of the padded axis; padding is in no group."""
        longest = batch.lengths[axis]
        labels = [[*a[axis].roles, *[None] * (longest - len(a[axis]))] for a in batch.axes]
        return Groups.of(labels, self.groups[axis])

    def forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> Any:
        return model(inputs["ids_BT"])
