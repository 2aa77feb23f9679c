"""Read facts (colours of parts, presence of things) from images of a synthetic world."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.files import write_json
from attention_atlas.training.fact_reader import SLOTS
from attention_atlas.training.facts import reading_of, saved_reading
from attention_atlas.training.pairs import SquareImages

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example

UNSEEN = -100  # ignored by the loss


@dataclass
class ImageClassifierTask:
    """Chosen by `_target_` in conf/train/image_classifier.yaml. A slot that cannot be seen is not learned.

    place_weight: weight of the loss that keeps a slot's attention inside the box of its part, where known.
    """

    split: str = "train"
    select_on: str = "val"
    size: int = 32
    batch_size: int = 32
    mirror: bool = True
    place_weight: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch_size < 2:
            raise ConfigError(f"batch_size: must be at least 2, not {self.batch_size}")
        self.best = ("accuracy", "max")

    def prepare(self, corpus: Corpus, features: Any = None) -> None:
        self.corpus = corpus
        self.reading = reading_of(corpus, self.split)
        self.images = SquareImages(corpus, self.size)
        self.examples = {}
        self.targets = {}
        for split in (self.split, self.select_on):
            first = {e.image_id: e for e in reversed(corpus.split(split))}
            if len(first) < (self.batch_size if split == self.split else 1):
                raise AtlasError(
                    f"{corpus.root}: split '{split}' has {len(first)} images; too few for a batch"
                )
            self.examples[split] = [first[name] for name in sorted(first)]
            rows = []
            for example in self.examples[split]:
                seen = self.reading.seen(corpus.scene(example))
                rows.append(
                    [v.index(seen[s]) if s in seen else UNSEEN for s, v in self.reading.slots.items()]
                )
            self.targets[split] = torch.tensor(rows)

    def model_sizes(self) -> dict[str, Any]:
        return {"values": [len(v) for v in self.reading.slots.values()], "size": self.size}

    def save(self, folder: Path) -> None:
        write_json(folder / SLOTS, saved_reading(self.reading))

    def steps_per_epoch(self) -> int:
        return len(self.examples[self.split]) // self.batch_size

    def batches(self, epoch: int, start: int = 0, every: int = 1) -> Iterator[dict[str, Tensor]]:
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.examples[self.split])).tolist()
        turned = (rng.random(len(order)) < 0.5) & self.mirror
        for b in range(start, self.steps_per_epoch(), every):
            chosen = order[b * self.batch_size : (b + 1) * self.batch_size]
            examples = [self.examples[self.split][i] for i in chosen]
            yield {
                "pixels_BCSS": self.images.batch(examples, [bool(turned[i]) for i in chosen]),
                "target_BX": self.targets[self.split][chosen],
                "box_BX4": torch.stack(
                    [self.box_of(self.examples[self.split][i], turned[i]) for i in chosen]
                ),
            }

    def box_of(self, example: Example, turned: bool = False) -> Tensor:
        """Relative boxes (X,4) of the slots, 0..1; all 0 where unknown."""
        scene = self.corpus.scene(example)
        boxes = self.reading.boxes(scene)
        rows = []
        for slot in self.reading.slots:
            x1, y1, x2, y2 = boxes.get(slot, (0.0, 0.0, 0.0, 0.0))
            if turned and slot in boxes:
                x1, x2 = scene.width - x2, scene.width - x1
            rows.append([x1 / scene.width, y1 / scene.height, x2 / scene.width, y2 / scene.height])
        return torch.tensor(rows)

    def losses(self, model: Any, batch: Any, step: int) -> Iterator[tuple[str, Tensor]]:
        target_BX = batch["target_BX"]
        seen_BXD, where_BXP = model.looked(batch["pixels_BCSS"])
        parts = [
            F.cross_entropy(logits, target_BX[:, x], ignore_index=UNSEEN, reduction="sum")
            for x, logits in enumerate(model.read(seen_BXD))
        ]
        loss = torch.stack(parts).sum() / (target_BX != UNSEEN).sum().clamp(min=1)
        inside_BXP = cells(batch["box_BX4"], round(where_BXP.shape[-1] ** 0.5))
        known_BX = inside_BXP.any(-1)
        if self.place_weight and bool(known_BX.any()):
            mass_BX = (where_BXP * inside_BXP).sum(-1).clamp(min=1e-6)
            loss = loss - self.place_weight * mass_BX[known_BX].log().mean()
        yield "all", loss

    @torch.no_grad()
    def validate(self, model: nn.Module) -> dict[str, float]:
        """accuracy: per cent of visible slots predicted correctly in held-out real images; chance: the
        same for always predicting each slot's most frequent value."""
        examples, target_NX = self.examples[self.select_on], self.targets[self.select_on]
        device = next(model.parameters()).device
        rows = []
        for start in range(0, len(examples), 64):
            out = model(self.images.batch(examples[start : start + 64]).to(device))
            rows.append(torch.stack([x.argmax(-1) for x in out], 1).cpu())
        real_NX = target_NX != UNSEEN
        frequent_X = torch.stack(
            [torch.mode(column[column != UNSEEN]).values for column in self.targets[self.split].T]
        )
        return {
            "accuracy": 100 * float((torch.cat(rows) == target_NX)[real_NX].float().mean()),
            "chance": 100 * float((frequent_X[None] == target_NX)[real_NX].float().mean()),
        }


def cells(box_BX4: Tensor, side: int) -> Tensor:
    """Which cells (B,X,side²) of a grid over the image a relative box touches; none for an empty box."""
    low = torch.arange(side, device=box_BX4.device) / side
    high = low + 1 / side
    x1, y1, x2, y2 = (box_BX4[..., i, None] for i in range(4))
    across, down = (low < x2) & (high > x1) & (x2 > x1), (low < y2) & (high > y1) & (y2 > y1)
    return (down[..., :, None] & across[..., None, :]).flatten(-2)
