"""The attributes of a shape: names and materials.

After CLEVR (Johnson et al. 2017, section 3): two sizes, eight colours, two materials; five shapes. Every word
is visibly true of the image, and every object has one word of each kind.
"""

from __future__ import annotations

import numpy as np

from attention_atlas.synthetic.mesh import Color, Material

COLORS: dict[str, Color] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.12, 0.62, 0.2),
    "cyan": (0.2, 0.82, 0.85),
    "blue": (0.13, 0.25, 0.85),
    "purple": (0.55, 0.16, 0.68),
    "gray": (0.5, 0.5, 0.5),
}
MATERIALS = ("rubber", "metal")
SIZES = {"small": 0.29, "large": 0.5}  # radius of the footprint in metres
SHAPES = ("cube", "sphere", "cylinder", "cone", "ring")
# In English order before a noun; the last is the noun.
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "size": tuple(SIZES),
    "color": tuple(COLORS),
    "material": MATERIALS,
    "shape": SHAPES,
}

# The table tops: name -> (colour, pattern, tile in metres). None has the colour of a shape.
TABLES: dict[str, tuple[Color, str, float]] = {
    "wooden": ((0.62, 0.45, 0.3), "planks", 2.6),
    "white": ((0.88, 0.87, 0.84), "plain", 0.4),
    "black": ((0.13, 0.13, 0.14), "plain", 0.4),
    "beige": ((0.78, 0.7, 0.58), "carpet", 1.6),
}
WALLS: tuple[Color, ...] = ((0.72, 0.72, 0.7), (0.62, 0.66, 0.7), (0.75, 0.69, 0.6), (0.3, 0.32, 0.35))


def surface(color: str, material: str, rng: np.random.Generator) -> Material:
    """Rubber is dull and plain; metal has bright bands and a highlight. The colour varies a little."""
    tone = 1 + rng.uniform(-0.07, 0.07)
    r, g, b = (float(np.clip(c * tone + rng.uniform(-0.02, 0.02), 0.02, 1.0)) for c in COLORS[color])
    if material == "metal":
        return Material(color=(r, g, b), pattern="metal", scale=0.55, shine=1.0)
    return Material(color=(r, g, b), shine=0.0)


def table_surface(name: str, rng: np.random.Generator) -> Material:
    color, pattern, scale = TABLES[name]
    return Material(color=color, pattern=pattern, scale=scale, shine=0.05, seed=int(rng.integers(8)))
