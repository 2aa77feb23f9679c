"""Pre-train the language model of the vision LLMs on texts alone: captions, and questions with answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.models.vlm.inputs import IGNORED, SLOT
from attention_atlas.training.batches import next_tokens, pooled

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.samples import Sample


@dataclass
class VlmTextTask:
    """A text is BOS, the filled template, caption or answer, EOS; every token after BOS is a target.

    layers: text layers {root, layer} in addition to `data=`. template: contains {prompt}; that of the vision
    LLM without <image>, so that the model learns its form. pieces: size of the tokenizer that is learned.
    """

    split: str = "train"
    select_on: str = "val"
    layers: Sequence[Mapping[str, str]] = field(default_factory=list)
    template: str = "USER: {prompt} ASSISTANT:"
    pieces: int = 1200
    longest: int = 64
    batch_size: int = 128
    judged: int = 0
    seed: int = 0

    def __post_init__(self) -> None:

        if self.batch_size < 1 or self.longest < 4:
            raise ConfigError("batch_size must be at least 1 and longest at least 4")
        if SLOT not in self.template:
            raise ConfigError(f"template: '{self.template}' does not contain {SLOT}; add it")
        self.best = ("loss", "min")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        from attention_atlas.models.vlm.tokenizer import train_tokenizer
        from attention_atlas.training.vlm_images import read_layers, samples

        corpora = read_layers(corpus, self.layers)
        train = samples(corpora, self.split)
        held_out = samples(corpora, self.select_on, self.judged)
        self.tokenizer = train_tokenizer((t for s in train for t in (s.prompt, s.text)), self.pieces)
        self.rows, self.held_out = self._coded(train), self._coded(held_out)

    def _coded(self, samples: Sequence[Sample]) -> list[list[int]]:
        """A row of ids for each sample. All texts in one call, which is much faster than one call per
        text."""
        prompts = self.tokenizer([self.template.replace(SLOT, s.prompt) for s in samples])["input_ids"]
        texts = self.tokenizer([s.text for s in samples], add_special_tokens=False)["input_ids"]
        end = self.tokenizer.eos_token_id
        return [[*[*p, *t][: self.longest - 1], end] for p, t in zip(prompts, texts)]

    def model_sizes(self) -> dict[str, int]:
        return {"pieces": len(self.tokenizer)}

    def save(self, folder: Path) -> None:
        from attention_atlas.models.vlm.tokenizer import save_tokenizer

        save_tokenizer(self.tokenizer, folder)

    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        order = pooled(len(self.rows), self.batch_size, [self.seed, epoch], lambda i: len(self.rows[i]))
        for indices in order[start::every]:
            yield next_tokens([self.rows[i] for i in indices], self.tokenizer.pad_token_id)

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", model.loss(batch["ids_BT"], batch["labels_BT"])

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy per token, nats."""
        text: Any = model
        device = next(model.parameters()).device
        total, count = 0.0, 0
        for at in range(0, len(self.held_out), self.batch_size):
            rows = self.held_out[at : at + self.batch_size]
            batch = next_tokens(rows, self.tokenizer.pad_token_id)
            number = int((batch["labels_BT"] != IGNORED).sum())
            total += number * float(text.loss(batch["ids_BT"].to(device), batch["labels_BT"].to(device)))
            count += number
        return {"loss": total / count}
