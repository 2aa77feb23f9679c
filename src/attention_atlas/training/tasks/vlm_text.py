"""Pre-train the language model of the vision LLMs on texts alone: captions, and questions with answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.models.vlm.inputs import IGNORED, SLOT
from attention_atlas.models.vlm.samples import CAPTION_PROMPT
from attention_atlas.models.vlm.tokenizer import IMAGE
from attention_atlas.training.batches import next_tokens, pooled

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus
    from attention_atlas.models.vlm.samples import Sample


@dataclass
class VlmTextTask:
    """A text is BOS, the filled template, caption or answer, EOS; every token after BOS is a target.

    layers: text layers {root, layer} in addition to `data=`. template: that of the vision LLM, with {prompt}
    and <image>. others: at most so many other texts about the picture stand in place of <image>, so that the
    model learns to use what precedes the prompt; each row has 0..others of them, drawn anew in every epoch.
    pieces: size of the tokenizer that is learned. longest: maximum tokens of a row.
    """

    split: str = "train"
    select_on: str = "val"
    layers: Sequence[Mapping[str, str]] = field(default_factory=list)
    template: str = "USER: <image> {prompt} ASSISTANT:"
    others: int = 0
    pieces: int = 1200
    longest: int = 64
    batch_size: int = 128
    judged: int = 0
    seed: int = 0

    def __post_init__(self) -> None:

        if self.batch_size < 1 or self.longest < 4:
            raise ConfigError("batch_size must be at least 1 and longest at least 4")
        for part in (SLOT, IMAGE):
            if part not in self.template:
                raise ConfigError(f"template: '{self.template}' does not contain {part}; add it")
        self.best = ("loss", "min")

    def prepare(self, corpus: Corpus, features: None = None) -> None:
        from attention_atlas.models.vlm.tokenizer import train_tokenizer
        from attention_atlas.training.vlm_pictures import read_layers, samples

        corpora = read_layers(corpus, self.layers)
        train = samples(corpora, self.split)
        self.tokenizer = train_tokenizer((t for s in train for t in (s.prompt, s.text)), self.pieces)
        self.train = Texts(train, self.tokenizer, self.template, self.longest)
        held_out = Texts(samples(corpora, self.select_on), self.tokenizer, self.template, self.longest)
        judged = set(samples(corpora, self.select_on, self.judged))
        self.held_out = held_out
        self.judged_rows = [i for i, sample in enumerate(held_out.samples) if sample in judged]

    def model_sizes(self) -> dict[str, int]:
        return {"pieces": len(self.tokenizer)}

    def save(self, folder: Path) -> None:
        from attention_atlas.models.vlm.tokenizer import save_tokenizer

        save_tokenizer(self.tokenizer, folder)

    def steps_per_epoch(self) -> int:
        return -(-len(self.train) // self.batch_size)

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        rows = self.train.rows(range(len(self.train)), self.others, [self.seed, epoch])
        order = pooled(len(rows), self.batch_size, [self.seed, epoch], lambda i: len(rows[i]))
        for indices in order[start::every]:
            yield next_tokens([rows[i] for i in indices], self.tokenizer.pad_token_id)

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        yield "all", model.loss(batch["ids_BT"], batch["labels_BT"])

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """Cross-entropy per token, nats: `loss`; with `others`, `loss_other` when these texts are about
        another picture."""
        text: Any = model
        device = next(model.parameters()).device
        found = {}
        for name, away in (("loss", 0), ("loss_other", 1))[: 1 + bool(self.others)]:
            rows = self.held_out.rows(self.judged_rows, self.others, [self.seed], away)
            total, count = 0.0, 0
            for at in range(0, len(rows), self.batch_size):
                batch = next_tokens(rows[at : at + self.batch_size], self.tokenizer.pad_token_id)
                number = int((batch["labels_BT"] != IGNORED).sum())
                loss = text.loss(batch["ids_BT"].to(device), batch["labels_BT"].to(device))
                total, count = total + number * float(loss), count + number
            found[name] = total / count
        return found


class Texts:
    """The texts of a split as token ids; `rows` puts other texts about the same picture before them."""

    def __init__(self, samples: Sequence[Sample], tokenizer: Any, template: str, longest: int) -> None:
        before, _, after = template.partition(IMAGE)
        self.samples, self.longest, self.end = list(samples), longest, tokenizer.eos_token_id

        def coded(texts: Sequence[str]) -> list[list[int]]:
            # All texts in one call, which is much faster than one call per text.
            return tokenizer(list(texts), add_special_tokens=False)["input_ids"]

        self.start = list(tokenizer(before)["input_ids"])
        self.prompts = coded([after.replace(SLOT, s.prompt) for s in self.samples])
        self.texts = coded([s.text for s in self.samples])
        self.stated = coded(
            [f"{s.text}." if s.prompt == CAPTION_PROMPT else f"{s.prompt} {s.text}." for s in self.samples]
        )
        by_image: dict[Path, list[int]] = {}
        for i, sample in enumerate(self.samples):
            by_image.setdefault(sample.image, []).append(i)
        self.about = list(by_image.values())
        self.picture = {i: n for n, own in enumerate(self.about) for i in own}

    def __len__(self) -> int:
        return len(self.samples)

    def rows(
        self, indices: Sequence[int], others: int = 0, seed: Sequence[int] = (), away: int = 0
    ) -> list[list[int]]:
        """Ids of each text with 0..others texts about its picture, or about that `away` pictures further.
        Texts that would make a row too long are left out."""
        rng = np.random.default_rng(seed)
        found = []
        for i in indices:
            row = [*self.prompts[i], *self.texts[i], self.end]
            before: list[int] = []
            if others:
                about = self.about[(self.picture[i] + away) % len(self.about)]
                for other in rng.permutation(about)[: rng.integers(others + 1)].tolist():
                    if (
                        other != i
                        and len(self.start) + len(before + self.stated[other] + row) <= self.longest
                    ):
                        before += self.stated[other]
            found.append([*self.start, *before, *row[: self.longest - len(self.start)]])
        return found
