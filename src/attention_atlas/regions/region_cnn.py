"""A small CNN that classifies a region from two crops, one tight and one with its surroundings.

Trained from scratch on the proposals of the train split. Its penultimate layer is the region feature, like
the pooled layer of the detector in bottom-up attention (Anderson et al. 2018, section 3.1). As there, the
label head has a background class and there is an attribute head; unlike there, attributes are independent
(sigmoid), because an object of the worlds has several at once. The position and size of the box are a further
input, because crops of one size hide them ("small" and "rug" depend on them).

Axes: B regions in a batch, D feature, C classes, A attributes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.files import atomic_path
from attention_atlas.regions.ahead import one_ahead

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

CONTEXT = 2.0  # the second view is this many times as wide and high as the box
PLACE = 32  # units that encode where the box is
BATCH_AT_EXTRACTION = 1152  # regions per forward pass when no gradients are kept


@dataclass
class RegionCNNConfig:
    """Sizes and schedule of the region CNN."""

    dim: int = 256  # D
    channels: tuple[int, int, int] = (32, 64, 128)
    crop: int = 24  # pixels of a view
    dropout: float = 0.2
    epochs: int = 6
    images_per_step: int = 8
    regions_per_image: int = 16
    lr: float = 3e-3
    warmup: float = 0.1  # fraction of the steps
    weight_decay: float = 0.02

    def __post_init__(self) -> None:
        # Hydra passes a list.
        first, second, third = (int(c) for c in self.channels)
        self.channels = (first, second, third)


@dataclass
class Batch:
    """crops (B,6,crop,crop) uint8; places (B,6); label (B,), where the number of labels means background;
    attributes (B,A) 0/1."""

    crops: np.ndarray
    places: np.ndarray
    label: np.ndarray
    attributes: np.ndarray


def two_views(image: Image, boxes: np.ndarray, crop: int) -> np.ndarray:
    """Each box as given, and enlarged by CONTEXT around its centre, as (n,6,crop,crop) uint8."""
    from PIL.Image import Resampling

    limit = np.array([*image.size, *image.size], dtype=np.float64)
    boxes = np.clip(np.asarray(boxes, dtype=np.float64), 0, limit)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) * (CONTEXT / 2)
    wide = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, limit)
    views = np.empty((len(boxes), 2, crop, crop, 3), dtype=np.uint8)
    for i, pair in enumerate(zip(boxes, wide)):
        for view, (x1, y1, x2, y2) in enumerate(pair):
            # resize with a box averages over all pixels of large boxes, without skipping any.
            small = image.resize((crop, crop), Resampling.BILINEAR, box=(x1, y1, x2, y2))
            views[i, view] = np.asarray(small)
    return views.transpose(0, 1, 4, 2, 3).reshape(len(boxes), 6, crop, crop)


def places(boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,6) float32: x1, y1, x2, y2, width, height of each box, relative to the picture."""
    relative = np.asarray(boxes, dtype=np.float64) / np.array([*size, *size])
    return np.concatenate([relative, relative[:, 2:] - relative[:, :2]], axis=1).astype(np.float32)


def mirror(crops: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same regions of the horizontally mirrored picture."""
    x1, y1, x2, y2, width, height = places.T
    return crops[..., ::-1], np.stack([1 - x2, y1, 1 - x1, y2, width, height], axis=1)


def build_net(config: RegionCNNConfig, labels: int, attributes: int) -> nn.Module:
    """forward(crops_B6HW float 0..1, places_B6) -> (features_BD >= 0, label logits (B, labels + 1), attribute
    logits (B, A))."""
    import torch
    from torch import nn

    first, second, third = config.channels

    def conv(inside: int, outside: int, stride: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outside),
            nn.ReLU(inplace=True),
        ]

    class RegionCNN(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                *conv(6, first, 2), *conv(first, first, 1), *conv(first, second, 2), *conv(second, third, 2)
            )
            side = math.ceil(config.crop / 8)
            self.place = nn.Sequential(nn.Linear(6, PLACE), nn.ReLU())
            self.penultimate = nn.Sequential(
                nn.Dropout(config.dropout),
                nn.Linear(third * side * side + PLACE, config.dim, bias=False),
                nn.BatchNorm1d(config.dim),
                nn.ReLU(),
            )
            self.drop = nn.Dropout(config.dropout)
            self.label = nn.Linear(config.dim, labels + 1)
            self.attribute = nn.Linear(config.dim, attributes)

        def forward(self, crops_B6HW: Tensor, places_B6: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen = self.body(crops_B6HW - 0.5).flatten(1)
            features_BD = self.penultimate(torch.cat([seen, self.place(places_B6)], dim=1))
            dropped = self.drop(features_BD)
            return features_BD, self.label(dropped), self.attribute(dropped)

    net = RegionCNN()
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def train(
    config: RegionCNNConfig,
    batches: Callable[[int], Iterator[Batch]],
    steps_per_epoch: int,
    labels: int,
    attributes: int,
    work: Path,
    device: str,
    seed: int,
) -> nn.Module:
    """Train, or resume from `work/region_cnn.pt`. `batches(epoch)` must depend only on the epoch.

    A resumed run gives the same weights as an uninterrupted one: all random generators are seeded again at
    each epoch, and the checkpoint includes the optimiser. training/loop.py seeds every batch and has no
    cosine schedule, so training by it would change all features.
    """
    import torch
    import torch.nn.functional as F

    torch.manual_seed(seed)
    net = build_net(config, labels, attributes).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    checkpoint, start = work / "region_cnn.pt", 0
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
            _, label_BC, attribute_BA = net(_to_float(batch.crops, device), places_B6)
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
        work.mkdir(parents=True, exist_ok=True)
        with atomic_path(checkpoint) as temporary:
            torch.save(
                {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch + 1}, temporary
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
    net: Any, crops: Sequence[np.ndarray], places: Sequence[np.ndarray], device: str
) -> list[Prediction]:
    """One Prediction per image, from crops (n,6,crop,crop) and places (n,6) of its regions."""
    import torch

    net.eval()
    sizes = [len(c) for c in crops]
    together, where = np.concatenate(list(crops)), np.concatenate(list(places))
    parts: list[list[np.ndarray]] = []
    with torch.inference_mode():
        for start in range(0, len(together), BATCH_AT_EXTRACTION):
            some = slice(start, start + BATCH_AT_EXTRACTION)
            features_BD, label_BC, attribute_BA = net(
                _to_float(together[some], device), torch.from_numpy(where[some]).to(device)
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


def _to_float(crops: np.ndarray, device: str) -> Tensor:
    import torch

    tensor = torch.from_numpy(crops).to(device).float().div_(255)
    return tensor.contiguous(memory_format=torch.channels_last)


def _schedule(step: int, total: int, warmup: float) -> float:
    """Linear rise, then half a cosine down to zero."""
    rise = max(1.0, warmup * total)
    if step < rise:
        return (step + 1) / (rise + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, total - rise)))
