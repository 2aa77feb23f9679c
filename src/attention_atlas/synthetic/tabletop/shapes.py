"""The shapes as triangles, standing on z = 0 with their axis through the origin."""

from __future__ import annotations

import numpy as np

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.synthetic.mesh import Material, Part, box, cylinder, ellipsoid
from attention_atlas.synthetic.tabletop.looks import SHAPES

SIDES = 24


def build(shape: str, radius: float, material: Material) -> list[Part]:
    """A shape whose footprint lies within `radius` (metres). Raises AtlasError for an unknown shape."""
    r = radius
    if shape == "cube":
        side = 1.42 * r  # its footprint's diagonal is the diameter
        return [box((side, side, side), (0, 0, side / 2), material)]
    if shape == "sphere":
        return [ellipsoid((1.8 * r, 1.8 * r, 1.8 * r), (0, 0, 0.9 * r), material, sides=SIDES)]
    if shape == "cylinder":
        return [cylinder(0.58 * r, 2.1 * r, (0, 0, 1.05 * r), material, sides=SIDES)]
    if shape == "cone":
        return [cylinder(0.9 * r, 1.9 * r, (0, 0, 0.95 * r), material, top=0.0, sides=SIDES)]
    if shape == "ring":
        return [torus(0.7 * r, 0.28 * r, (0, 0, 0.28 * r), material)]
    raise AtlasError(f"tabletop: shape: '{shape}' is unknown{did_you_mean(shape, SHAPES)}")


def torus(
    radius: float, thick: float, center: tuple[float, float, float], material: Material, sides: int = SIDES
) -> Part:
    """A ring that lies flat. radius: from its centre to the middle of the tube; thick: radius of the tube."""
    around, about = np.meshgrid(
        np.linspace(0, 2 * np.pi, sides + 1), np.linspace(0, 2 * np.pi, sides // 2 + 1), indexing="ij"
    )
    out = np.stack([np.cos(around), np.sin(around), np.zeros_like(around)], axis=-1)
    up = np.array([0.0, 0.0, 1.0])
    normals = (np.cos(about)[..., None] * out + np.sin(about)[..., None] * up).reshape(-1, 3)
    points = radius * out.reshape(-1, 3) + thick * normals + np.array(center)
    scale = material.scale or 1.0
    uv = np.stack([around.ravel() * radius / scale, about.ravel() * thick / scale], axis=1)
    n = sides // 2 + 1
    triangles = [
        corner
        for i in range(sides)
        for j in range(sides // 2)
        for corner in (
            [i * n + j, (i + 1) * n + j, (i + 1) * n + j + 1],
            [i * n + j, (i + 1) * n + j + 1, i * n + j + 1],
        )
    ]
    return Part(points, normals, uv, np.array(triangles), material)
