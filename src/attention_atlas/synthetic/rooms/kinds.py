"""Kinds of objects, and their registry, which the modules of furniture/ fill.

A kind is a function that builds its parts: `build(size, look)` returns parts with the footprint centred on
the origin, on z = 0, facing the viewer (-y). To add a kind, write a function with `@kind(label)` and an entry
in TABLE.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import yaml

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
METAL = Material(color=(0.72, 0.73, 0.76), shine=1.0)
DARK = Material(color=(0.12, 0.12, 0.13), shine=0.4)
WHITE = Material(color=(0.93, 0.93, 0.92), shine=0.2)
LEAF = Material(color=(0.16, 0.48, 0.18), shine=0.1)
EARTH = Material(color=(0.25, 0.17, 0.1))
OAK = Material(color=(0.58, 0.38, 0.2), pattern="wood", scale=0.5)

Size = tuple[float, float, float]

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
# Words for several colours or patterns in TABLE.
SETS = {
    "CLOTH": "white gray brown beige red orange yellow green blue purple pink",
    "PAINT": "white black gray red yellow green blue",
    "TIMBER": "brown brown brown white black beige",
    "SOFT": "plain plain plain striped checkered floral",
    "BRIGHT": "red orange yellow green blue purple pink white",
}
# The fields of each kind. size: width, depth and height in metres; colors, materials, patterns: repeated
# ones are more likely; material "plain": none.
TABLE: dict[str, dict[str, Any]] = yaml.safe_load("""
sofa: {size: 1.6-2.3 0.8-0.95 0.75-0.9, colors: CLOTH black, materials: plain plain leather, patterns: SOFT,
  words: [couch], top: 0.0, salience: 2.0}
armchair: {size: 0.8-1 0.8-0.9 0.8-1, colors: CLOTH black, materials: plain leather, patterns: SOFT,
  words: [chair, easy chair], salience: 1.4}
chair: {size: 0.42-0.52 0.42-0.52 0.85-1.05, colors: TIMBER PAINT, materials: wooden plain metal,
  salience: 1.2, variants: 2}
stool: {size: 0.35-0.45 0.35-0.45 0.5-0.75, colors: TIMBER PAINT, materials: wooden plain metal,
  variants: 2, round_variant: 1}
bench: {size: 1-1.5 0.38-0.48 0.44-0.5, colors: TIMBER PAINT, materials: wooden plain, sizes: [small, long]}
bed: {size: 1-1.8 1.9-2.1 0.9-1.15, colors: CLOTH, patterns: SOFT, salience: 2.2, top: 0.5,
  sizes: [small, large], variants: 2}
crib: {size: 0.7-0.8 1.1-1.3 0.85-0.95, colors: white brown beige, materials: wooden, words: [cot],
  salience: 1.6}
table: {size: 0.9-1.7 0.8-1 0.7-0.78, colors: TIMBER white gray red, materials: wooden wooden plain,
  top: 1.0, salience: 1.8, variants: 3, round_variant: 2}
coffee table: {size: 0.8-1.15 0.5-0.65 0.36-0.44, colors: TIMBER gray, materials: wooden wooden plain,
  words: [table, low table], top: 1.0, salience: 1.4, variants: 2}
desk: {size: 1.1-1.5 0.55-0.7 0.72-0.78, colors: TIMBER gray, materials: wooden wooden plain, top: 1.0,
  salience: 1.5}
nightstand: {size: 0.42-0.52 0.38-0.45 0.48-0.58, colors: TIMBER, materials: wooden wooden plain,
  words: [bedside table, side table], top: 1.0}
dresser: {size: 0.9-1.3 0.45-0.52 0.8-1, colors: TIMBER blue green, materials: wooden wooden plain,
  words: [chest of drawers], top: 1.0, salience: 1.3}
cabinet: {size: 0.9-1.5 0.42-0.52 0.65-0.9, colors: TIMBER gray green blue, materials: wooden wooden plain,
  words: [cupboard, sideboard], top: 1.0, salience: 1.2}
wardrobe: {size: 1-1.5 0.55-0.65 1.85-2.15, colors: TIMBER, materials: wooden wooden plain,
  words: [closet, armoire], salience: 1.3, sizes: [narrow, large]}
bookshelf: {size: 0.8-1.2 0.3-0.36 1.5-2, colors: TIMBER gray, materials: wooden wooden plain,
  words: [bookcase, shelf], holds: 0.04, salience: 1.3, sizes: [narrow, wide]}
toilet: {size: 0.38-0.42 0.62-0.7 0.78-0.85, colors: white, salience: 1.5, sizes: ["", ""]}
bathtub: {size: 1.5-1.75 0.7-0.8 0.52-0.6, colors: white white gray beige, words: [tub], salience: 1.7}
sink: {size: 0.55-0.75 0.45-0.52 0.84-0.9, colors: white white beige, salience: 1.4,
  words: [washbasin, basin], variants: 2}
fridge: {size: 0.65-0.8 0.62-0.7 1.6-1.85, colors: white gray black red, materials: plain metal,
  words: [refrigerator], salience: 1.5, sizes: [narrow, large]}
stove: {size: 0.6-0.72 0.58-0.64 0.86-0.92, colors: white black gray red, materials: plain metal,
  words: [oven], salience: 1.5, top: 1.0}
fireplace: {size: 1.1-1.4 0.34-0.42 1-1.2, colors: red gray white brown, materials: brick, salience: 1.7,
  top: 1.0}
floor lamp: {size: 0.38-0.48 0.38-0.48 1.45-1.75, colors: BRIGHT beige, words: [standing lamp, lamp],
  salience: 1.4, sizes: ["", tall]}
plant: {size: 0.5-0.75 0.5-0.75 0.9-1.5, colors: green, words: [potted plant], salience: 1.4, variants: 2,
  sizes: ["", tall]}
box: {size: 0.32-0.6 0.3-0.5 0.28-0.45, colors: brown brown BRIGHT, words: [crate], holds: 0.55,
  patterns: plain plain plain striped dotted}
basket: {size: 0.36-0.52 0.36-0.52 0.3-0.42, colors: brown beige white, materials: wicker, holds: 0.6,
  round_variant: 0}
bin: {size: 0.26-0.34 0.26-0.34 0.34-0.5, colors: black gray blue red green white, materials: plain metal,
  words: [trash can, waste basket], sizes: ["", ""]}
ball: {size: 0.22-0.42 0.22-0.42 0.22-0.42, colors: BRIGHT, patterns: plain plain striped dotted,
  salience: 1.2}
teddy bear: {size: 0.3-0.42 0.26-0.34 0.42-0.58, colors: brown brown beige pink white,
  words: [stuffed bear, toy bear], salience: 1.4, sizes: [small, big]}
rug: {size: 1.4-2.4 1.1-1.7 0.02-0.02, colors: CLOTH, patterns: plain striped checkered bordered bordered
  floral, words: [carpet, area rug], salience: 1.4, variants: 3, round_variant: 2}
lamp: {size: 0.3-0.4 0.3-0.4 0.45-0.6, colors: BRIGHT beige, words: [table lamp], salience: 1.4,
  variants: 2, sizes: ["", ""]}
flowers: {size: 0.26-0.34 0.26-0.34 0.4-0.52, colors: red yellow pink purple orange white, plural: true,
  salience: 1.2, sizes: ["", ""]}
vase: {size: 0.2-0.28 0.2-0.28 0.32-0.45, colors: BRIGHT, salience: 1.1, sizes: ["", tall], patterns: plain
  plain striped}
books: {size: 0.4-0.65 0.18-0.2 0.2-0.26, colors: "", plural: true, salience: 1.1, sizes: ["", ""]}
pillow: {size: 0.42-0.5 0.16-0.18 0.34-0.4, colors: CLOTH, words: [cushion], patterns: plain plain striped
  dotted checkered, sizes: ["", ""]}
tv: {size: 0.9-1.3 0.16-0.2 0.6-0.8, colors: black, words: [television, flat screen tv], salience: 1.6}
laptop: {size: 0.36-0.44 0.3-0.34 0.26-0.3, colors: gray black white, words: [computer], salience: 1.3,
  sizes: ["", ""]}
bowl: {size: 0.28-0.38 0.28-0.38 0.12-0.16, colors: BRIGHT, sizes: ["", ""], variants: 2}
bottle: {size: 0.1-0.13 0.1-0.13 0.34-0.42, colors: green brown blue white, sizes: ["", ""]}
pot: {size: 0.26-0.34 0.26-0.34 0.18-0.24, colors: gray red blue black, materials: metal,
  words: [cooking pot], sizes: ["", ""]}
window: {size: 0.8-1.7 0.06-0.06 0.9-1.3, colors: white white brown black, salience: 1.4, variants: 2}
door: {size: 0.85-1 0.07-0.07 1.95-2.1, colors: TIMBER PAINT, materials: wooden wooden plain, salience: 1.3,
  sizes: ["", ""]}
curtains: {size: 1.2-2.2 0.1-0.1 1.3-1.7, colors: CLOTH, patterns: plain plain striped floral dotted,
  words: [drapes], plural: true, sizes: ["", ""]}
painting: {size: 0.5-1.1 0.04-0.04 0.45-0.8, colors: brown black white yellow,
  words: [picture, framed picture], salience: 1.2}
sign: {size: 1-1.5 0.04-0.04 0.5-0.75, colors: white black red green blue yellow, salience: 1.8,
  sizes: [small, big]}
mirror: {size: 0.5-0.9 0.04-0.04 0.7-1.1, colors: brown black white yellow, salience: 1.2}
clock: {size: 0.36-0.5 0.05-0.05 0.36-0.5, colors: black brown red blue white, salience: 1.1, variants: 1,
  round_variant: 0}
shelf: {size: 0.8-1.2 0.24-0.28 0.1-0.12, colors: TIMBER, materials: wooden, top: 1.0, words: [wall shelf],
  sizes: [small, long]}
towel: {size: 0.4-0.6 0.06-0.06 0.6-0.8, colors: CLOTH, patterns: plain plain striped, sizes: ["", ""]}
ceiling lamp: {size: 0.45-0.65 0.45-0.65 0.6-0.9, colors: white red yellow black green,
  words: [hanging lamp, ceiling light], salience: 1.1, variants: 2}
chandelier: {size: 0.6-0.9 0.6-0.9 0.6-0.85, colors: yellow black brown, materials: metal plain,
  salience: 1.3}
""")


def kind(label: str) -> Callable[[Callable[[Size, Look], list[Part]]], Callable]:
    """Register the decorated builder with the line of this label in TABLE."""

    def register(build: Callable[[Size, Look], list[Part]]) -> Callable[[Size, Look], list[Part]]:
        row = dict(TABLE[label])
        width, depth, height = (_range(text) for text in row.pop("size").split())
        for name in {"colors", "materials", "patterns"} & row.keys():
            several = " ".join(SETS.get(word, word) for word in row[name].split(" "))
            row[name] = tuple(several.split(" "))
        row["materials"] = tuple(m.replace("plain", "") for m in row.get("materials", ("",)))
        for name in {"words", "sizes"} & row.keys():
            row[name] = tuple(row[name])
        KINDS[label] = Kind(label, build, (width, depth, height), **row)
        return build

    return register


def _range(text: str) -> Range:
    low, high = text.split("-")
    return float(low), float(high)


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
