"""Images and a small classifier that the example notebooks share: a coloured disc and a striped square.

Axes: N images, H height, W width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

SIZE, PATCH = 48, 8
COLOURS = {"red": (0.85, 0.15, 0.15), "green": (0.1, 0.65, 0.2), "blue": (0.15, 0.3, 0.85)}
STRIPES = ("horizontal", "vertical", "diagonal")
Box = tuple[int, int, int, int]


@dataclass
class Images:
    """images (N,H,W,3) 0..1; boxes x1,y1,x2,y2 in pixels, x2 and y2 exclusive; colours (N,) into COLOURS,
    the disc's; stripes (N,) into STRIPES, the square's."""

    images: np.ndarray
    discs: list[Box]
    squares: list[Box]
    colours: np.ndarray
    stripes: np.ndarray

    @property
    def pixels(self) -> Tensor:
        """(N,3,H,W) in -1..1, as the model takes them."""
        return torch.tensor(self.images, dtype=torch.float32).permute(0, 3, 1, 2) * 2 - 1


def draw(count: int, seed: int) -> Images:
    """`count` images on a noisy ground: one disc in a colour and one striped square that do not overlap."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0.35, 0.65, (count, SIZE, SIZE, 1)).repeat(3, axis=-1)
    colours, stripes = rng.integers(0, 3, (2, count))
    y, x = np.mgrid[:SIZE, :SIZE]
    lines = [y // 2 % 2, x // 2 % 2, (x + y) // 2 % 2]
    discs, squares = [], []
    for image, colour, stripe in zip(images, colours, stripes):
        disc = square = _box(rng)
        while _overlap(disc, square):
            square = _box(rng)
        left, top, right, bottom = disc
        inside = np.hypot(x + 0.5 - (left + right) / 2, y + 0.5 - (top + bottom) / 2) <= (right - left) / 2
        image[inside] = list(COLOURS.values())[colour]
        at = np.s_[square[1] : square[3], square[0] : square[2]]
        image[at] = lines[stripe][at][..., None]
        discs.append(disc)
        squares.append(square)
    return Images(images, discs, squares, colours, stripes)


def _box(rng: np.random.Generator) -> Box:
    side = int(rng.integers(10, 21))
    left, top = (int(v) for v in rng.integers(0, SIZE - side + 1, 2))
    return left, top, left + side, top + side


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def small_vit(seed: int = 0, layers: int = 2):
    """A ViT of transformers with random weights, built from its configuration."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        image_size=SIZE,
        patch_size=PATCH,
        num_labels=len(COLOURS),
        initializer_range=0.1,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return ViTForImageClassification(config).eval()


def train(model, pixels: Tensor, target: np.ndarray, steps: int = 150, batch: int = 32, seed: int = 0):
    """Train the model to name the class `target` (N,); returns the model."""
    torch.manual_seed(seed)
    labels = torch.tensor(target)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    model.train()
    for _ in range(steps):
        chosen = torch.randint(len(labels), (batch,))
        loss = model(pixel_values=pixels[chosen], labels=labels[chosen]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rate.step()
    return model.eval()
