"""Kinds of objects, and their registry, which the modules of furniture/ fill.

A kind is a function that builds its parts: `build(size, look)` returns parts with the footprint centred on
the origin, on z = 0, facing the viewer (-y). To add a kind, write a function with `@kind(...)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from attention_atlas.synthetic.mesh import Color, Material, Part, box

COLORS: dict[str, Color] = {
    "white": (0.93, 0.93, 0.91),
    "black": (0.13, 0.13, 0.14),
    "gray": (0.52, 0.53, 0.55),
    "brown": (0.46, 0.29, 0.16),
    "beige": (0.85, 0.76, 0.58),
    "red": (0.78, 0.12, 0.12),
    "orange": (0.93, 0.47, 0.10),
    "yellow": (0.95, 0.81, 0.20),
    "green": (0.17, 0.52, 0.24),
    "blue": (0.15, 0.32, 0.75),
    "purple": (0.46, 0.20, 0.60),
    "pink": (0.95, 0.56, 0.68),
}
CLOTH = ("white", "gray", "brown", "beige", "red", "orange", "yellow", "green", "blue", "purple", "pink")
PAINT = ("white", "black", "gray", "red", "yellow", "green", "blue")
TIMBER = ("brown", "brown", "brown", "white", "black", "beige")
METAL = Material(color=(0.72, 0.73, 0.76), shine=1.0)
DARK = Material(color=(0.12, 0.12, 0.13), shine=0.4)
WHITE = Material(color=(0.93, 0.93, 0.92), shine=0.2)
LEAF = Material(color=(0.16, 0.48, 0.18), shine=0.1)
EARTH = Material(color=(0.25, 0.17, 0.1))
OAK = Material(color=(0.58, 0.38, 0.2), pattern="wood", scale=0.5)

Size = tuple[float, float, float]
SOFT = ("plain", "plain", "plain", "striped", "checkered", "floral")

Range = tuple[float, float]


@dataclass(frozen=True)
class Look:
    """The input of a builder: the main material, a second one, and a number for variants."""

    main: Material
    second: Material = WHITE
    variant: int = 0
    seed: int = 0
    words: str = ""


@dataclass(frozen=True)
class Kind:
    label: str
    build: Callable[[Size, Look], list[Part]]
    size: tuple[Range, Range, Range]  # width, depth, height in metres
    mount: str  # floor | wall | top | ceiling | inside
    colors: tuple[str, ...]
    materials: tuple[str, ...] = ("",)  # of wooden, metal, leather, wicker, "" plain
    patterns: tuple[str, ...] = ("plain",)
    words: tuple[str, ...] = ()  # other names for it
    plural: bool = False  # the word is a plural ("books")
    top: float = 0.0  # height of its surface for other objects, as a fraction of the height; 0: none
    holds: float = 0.0  # height of its inner floor, as a fraction of the height; 0: none
    salience: float = 1.0
    sizes: tuple[str, str] = ("small", "large")  # words for the lowest and highest fifth of the widths
    variants: int = 1
    round_variant: int = -1  # this variant is round


KINDS: dict[str, Kind] = {}


def kind(label: str, **fields: object) -> Callable[[Callable[[Size, Look], list[Part]]], Callable]:
    def register(build: Callable[[Size, Look], list[Part]]) -> Callable[[Size, Look], list[Part]]:
        KINDS[label] = Kind(label=label, build=build, **fields)  # type: ignore[arg-type]
        return build

    return register


def plain(material: Material) -> Material:
    """The same colour without pattern, for the small parts of a patterned object."""
    return replace(material, pattern="plain")


def shade(material: Material, factor: float) -> Material:
    r, g, b = material.color
    return replace(material, color=(min(r * factor, 1), min(g * factor, 1), min(b * factor, 1)))


def stretched(material: Material) -> Material:
    """The same material with one tile per face."""
    return replace(material, scale=0.0)


def legs(w: float, d: float, h: float, material: Material, thick: float = 0.05) -> list[Part]:
    """Four legs at the corners of a w × d footprint."""
    x, y = w / 2 - thick / 2, d / 2 - thick / 2
    return [box((thick, thick, h), (sx * x, sy * y, h / 2), material) for sx in (-1, 1) for sy in (-1, 1)]


def spread(width: float, n: int) -> list[float]:
    return [-width / 2 + width * (i + 1) / (n + 1) for i in range(n)]
