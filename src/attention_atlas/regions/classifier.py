"""Training and use of a region classifier: a net that turns regions into features, labels and attributes.

A net takes the visual input of each region and its place (B,6). It returns features (B,D), label
logits (B, labels + 1), the last one for background, and attribute logits (B,A). Attributes are independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attention_atlas.files import atomic_path
from attention_atlas.regions.ahead import one_ahead

if TYPE_CHECKING:
    from torch import nn

BATCH_AT_EXTRACTION = 1152  # regions per forward pass when no gradients are kept


class Schedule(Protocol):
    """Settings of `train`."""

    epochs: int
    lr: float
    warmup: float  # fraction of the steps
    weight_decay: float


@dataclass
class Batch:
    """seen (B,...) is the visual input; places (B,6); label (B,), where the number of labels means
    background; attributes (B,A) 0/1."""

    seen: np.ndarray
    places: np.ndarray
    label: np.ndarray
    attributes: np.ndarray


def train(
    build: Callable[[], nn.Module],
    config: Schedule,
    batches: Callable[[int], Iterator[Batch]],
    steps_per_epoch: int,
    labels: int,
    attributes: int,
    checkpoint: Path,
    device: str,
    seed: int,
) -> nn.Module:
    """Train, or resume from `checkpoint`. `batches(epoch)` must depend only on the epoch.

    A resumed run gives the same weights as an uninterrupted one: all random generators are seeded again at
    each epoch, and the checkpoint includes the optimiser. training/loop.py seeds every batch and has no
    cosine schedule, so training by it would change all features.
    """
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    net = build().to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        start = int(state["epoch"])
    total = config.epochs * steps_per_epoch
    for epoch in range(start, config.epochs):
        torch.manual_seed(seed * 100_003 + epoch + 1)
        net.train()
        for step, batch in enumerate(one_ahead(batches(epoch)), start=epoch * steps_per_epoch):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * _schedule(step, total, config.warmup)
            label_B = torch.from_numpy(batch.label).to(device)
            places_B6 = torch.from_numpy(batch.places).to(device)
            _, label_BC, attribute_BA = net(torch.from_numpy(batch.seen).to(device), places_B6)
            loss = F.cross_entropy(label_BC, label_B)
            shown_B = label_B < labels  # the background has no attributes to learn from
            if attributes and bool(shown_B.any()):
                wanted_BA = torch.from_numpy(batch.attributes).to(device)
                # Summed over attributes: each is a separate decision, like the label.
                loss = loss + F.binary_cross_entropy_with_logits(
                    attribute_BA[shown_B], wanted_BA[shown_B], reduction="sum"
                ) / int(shown_B.sum())
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        # Through a Python file: torch's own writer does not report a full disk.
        with atomic_path(checkpoint) as temporary, temporary.open("wb") as file:
            torch.save(
                {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, file
            )
    return net


@dataclass
class Prediction:
    """features (B,D) float16; label (B,) best class other than background, with its probability among all
    classes; attribute (B,) best attribute with its probability (-1 and 0 if there are no attributes)."""

    features: np.ndarray
    label: np.ndarray
    label_confidence: np.ndarray
    attribute: np.ndarray
    attribute_confidence: np.ndarray


def predict(
    net: Any, seen: Sequence[np.ndarray], places: Sequence[np.ndarray], device: str
) -> list[Prediction]:
    """One Prediction per image, from the visual input of its regions (n,...) and their places (n,6)."""
    import torch

    net.eval()
    sizes = [len(s) for s in seen]
    together, where = np.concatenate(list(seen)), np.concatenate(list(places))
    parts: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for start in range(0, len(together), BATCH_AT_EXTRACTION):
            some = slice(start, start + BATCH_AT_EXTRACTION)
            features_BD, label_BC, attribute_BA = net(
                torch.from_numpy(together[some]).to(device), torch.from_numpy(where[some]).to(device)
            )
            chance, label = label_BC.softmax(-1)[:, :-1].max(-1)
            if attribute_BA.shape[1]:
                attribute_chance, attribute = attribute_BA.sigmoid().max(-1)
            else:
                attribute_chance, attribute = torch.zeros_like(chance), torch.full_like(label, -1)
            parts.append(
                [
                    features_BD.half().cpu().numpy(),
                    label.cpu().numpy(),
                    chance.cpu().numpy(),
                    attribute.cpu().numpy(),
                    attribute_chance.cpu().numpy(),
                ]
            )
    columns = [np.concatenate(column) for column in zip(*parts)]
    cuts = np.cumsum(sizes)[:-1]
    return [Prediction(*row) for row in zip(*(np.split(column, cuts) for column in columns))]


def _schedule(step: int, total: int, warmup: float) -> float:
    """Linear rise, then half a cosine down to zero."""
    rise = max(1.0, warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))
