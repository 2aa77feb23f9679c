"""Ground and background of a bird. To add one, write a function and add it to the table."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from attention_atlas.synthetic.birds.loft import loft
from attention_atlas.synthetic.mesh import Material, Part, box, ellipsoid, panel

FAR = 5.0  # how far behind the bird, in sides of the image
Made = tuple[str, list[str], list[Part]]  # label, attributes, triangles
GROUND_COLORS = {
    "branch": (("brown", (0.34, 0.24, 0.16)), ("gray", (0.42, 0.41, 0.4))),
    "grass": (("green", (0.42, 0.58, 0.3)), ("yellow", (0.72, 0.68, 0.38))),
    "sand": (("beige", (0.82, 0.74, 0.58)),),
    "snow": (("white", (0.84, 0.86, 0.9)),),
    "water": (("blue", (0.4, 0.58, 0.7)), ("gray", (0.52, 0.58, 0.6))),
    "rock": (("gray", (0.47, 0.46, 0.46)), ("brown", (0.48, 0.4, 0.33))),
}


def ground(kind: str, feet: float, rng: np.random.Generator) -> Made:
    """The ground below the feet, which are at height `feet`. Lengths are fractions of the image's side."""
    colors = GROUND_COLORS[kind]
    word, rgb = colors[int(rng.integers(len(colors)))]
    material = Material(rgb, glow=0.12 if kind in ("branch", "rock") else 0.3)
    if kind == "branch":
        lean, thick = rng.uniform(-0.12, 0.12), rng.uniform(0.028, 0.045)
        x = np.array([-0.8, -0.4, 0.0, 0.4, 0.8])
        z = (
            feet
            - thick
            + lean * x
            + np.array([*rng.uniform(-0.03, 0.03, 2), 0, *rng.uniform(-0.03, 0.03, 2)])
        )
        radius = thick * np.linspace(1.2, 0.8, 5)
        return "branch", [word], [loft(np.stack([x, z], 1), radius, radius, material, 24, 12)[0]]
    if kind == "rock":
        wide, deep = rng.uniform(0.7, 1.1), rng.uniform(0.4, 0.6)
        return "rock", [word], [ellipsoid((wide, 0.7, 2 * deep), (0, 0, feet - deep + 0.01), material, 24)]
    return kind, [word], [box((8.0, 2 * FAR, 0.1), (0, 0, feet - 0.05), material)]


def sky(rng: np.random.Generator) -> Made:
    rgb = np.array([0.62, 0.79, 0.94]) + rng.uniform(-0.06, 0.05)
    return "sky", ["blue"], [_wall(rgb)]


def clouds(rng: np.random.Generator) -> Made:
    parts = [_wall(np.array([0.55, 0.73, 0.9]))]
    for _ in range(4):
        x, z = rng.uniform(-1.6, 1.6), rng.uniform(-1.4, 1.4)
        size = (float(rng.uniform(0.8, 1.8)), 0.1, float(rng.uniform(0.2, 0.5)))
        parts.append(ellipsoid(size, (x, FAR - 0.3, z), Material((0.88, 0.9, 0.93), glow=0.1), 14))
    return "sky", ["blue", "cloudy"], parts


def fog(rng: np.random.Generator) -> Made:
    return "sky", ["gray"], [_wall(np.array([0.74, 0.76, 0.77]) + rng.uniform(-0.06, 0.06))]


def leaves(rng: np.random.Generator) -> Made:
    """Out-of-focus green: large soft patches."""
    base = np.array([0.45, 0.58, 0.36]) + rng.uniform(-0.05, 0.05)
    parts = [_wall(base)]
    for _ in range(5):
        x, z, side = rng.uniform(-1.8, 1.8), rng.uniform(-1.8, 1.8), float(rng.uniform(0.5, 1.2))
        red, green, blue = (float(v) for v in base * rng.uniform(0.8, 1.15))
        parts.append(
            ellipsoid((side, 0.1, side), (x, FAR - 0.3, z), Material((red, green, blue), glow=0.1), 14)
        )
    return "leaves", ["green"], parts


def _wall(rgb: NDArray[np.float64]) -> Part:
    red, green, blue = (float(v) for v in rgb)
    return panel(14.0, 14.0, (0.0, FAR, 0.0), Material((red, green, blue), glow=0.1))


BACKDROPS: dict[str, Callable[[np.random.Generator], Made]] = {
    "sky": sky,
    "clouds": clouds,
    "fog": fog,
    "leaves": leaves,
}
