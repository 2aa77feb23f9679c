"""Sampling the appearance of an object, with the words that are true of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention_atlas.synthetic.mesh import Color, Material
from attention_atlas.synthetic.rooms.kinds import COLORS, Kind, Look, Size

# People describe a painting by its motif and a window by its view; they rarely name the frame's colour.
FRAMED = ("painting", "mirror", "window")
PALE = ("white", "beige", "gray")  # a pattern in a pale colour on white would not be seen
FIFTH = 0.2


@dataclass(frozen=True)
class Chosen:
    """Size in metres, look, and its words as in plan.Placed."""

    size: Size
    look: Look
    color: str = ""
    material: str = ""
    pattern: str = ""
    size_word: str = ""
    shape: str = ""


def choose(kind: Kind, rng: np.random.Generator, words: str = "") -> Chosen:
    """Sample size, colour, material and pattern."""
    share = rng.random(3)
    width, depth, height = (
        float(low + s * (high - low)) for s, (low, high) in zip(share, kind.size, strict=True)
    )
    pattern = str(rng.choice(kind.patterns))
    material = "" if pattern != "plain" else str(rng.choice(kind.materials))
    variant = int(rng.integers(kind.variants))
    if pattern == "bordered" and variant == kind.round_variant:
        pattern = "plain"
    named = [c for c in kind.colors if pattern == "plain" or c not in PALE] or list(kind.colors)
    color = str(rng.choice(named))
    seed = int(rng.integers(10_000))
    main = _surface(color, pattern, material, seed, rng)
    look = Look(main=main, variant=variant, seed=seed, words=words.replace(" ", "\n"))
    return Chosen(
        size=(width, depth, height),
        look=look,
        color="" if kind.label in FRAMED else color,
        material=material,
        pattern="" if pattern == "plain" else pattern,
        size_word=_size_word(kind, share),
        shape="round" if variant == kind.round_variant else "",
    )


def _size_word(kind: Kind, share: np.ndarray) -> str:
    low, high = kind.sizes
    measured = share[2] if high == "tall" else share[0]
    if measured < FIFTH:
        return low
    return high if measured > 1 - FIFTH else ""


def _surface(color: str, pattern: str, material: str, seed: int, rng: np.random.Generator) -> Material:
    rgb = jittered(COLORS[color] if color else COLORS["white"], rng)
    second = COLORS["black"] if pattern == "checkered" and rng.random() < 0.25 else COLORS["white"]
    drawn = {"wooden": "wood"}.get(material, material or pattern)
    if drawn == "brick":
        second = (0.8, 0.78, 0.75)
    shine = {"leather": 0.6, "metal": 1.0}.get(material, 0.1)
    scale = 1.0 if material == "metal" else 0.4
    return Material(color=rgb, second=second, pattern=drawn, scale=scale, shine=shine, seed=seed % 8)


def jittered(color: Color, rng: np.random.Generator, amount: float = 0.06) -> Color:
    """A similar colour of the same name."""
    tone = 1 + rng.uniform(-amount, amount)
    r, g, b = (float(np.clip(c * tone + rng.uniform(-0.02, 0.02), 0.02, 1.0)) for c in color)
    return (r, g, b)
