"""Primitives as plain triangle arrays in metres, and the materials they carry.

Axes: x to the right, y away from the viewer, z up. A `Part` consists of triangles of one material; faces do
not share vertices, so each has its own normal and texture coordinates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Color = tuple[float, float, float]


@dataclass(frozen=True)
class Material:
    """The appearance of a surface. `pattern` names a function of textures.py ("plain": one colour).

    `scale` is the side of one texture tile in metres; 0 stretches one tile over each face (images).
    """

    color: Color = (0.8, 0.8, 0.8)
    second: Color = (1.0, 1.0, 1.0)
    pattern: str = "plain"
    scale: float = 0.4
    shine: float = 0.0  # strength of the specular highlight, 0..1
    glow: float = 0.0  # emitted light, added to the ambient fraction
    seed: int = 0  # of random textures (paintings, books)
    words: str = ""  # letters to draw ("sign" pattern)


@dataclass
class Part:
    points: Array  # (V, 3)
    normals: Array  # (V, 3)
    uv: Array  # (V, 2), metres, or 0..1 for stretched faces
    triangles: NDArray[np.int64]  # (T, 3)
    material: Material


# The eight corners by (x, y, z) sign; each face lists four of them, counter-clockwise from outside.
_CORNERS = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
_FACE_CORNERS = np.array(
    [[0, 4, 5, 1], [6, 2, 3, 7], [2, 0, 1, 3], [4, 6, 7, 5], [1, 5, 7, 3], [2, 6, 4, 0]]
).ravel()  # front, back, left, right, top, bottom
_FACE_NORMALS = np.repeat(
    np.array([[0, -1, 0], [0, 1, 0], [-1, 0, 0], [1, 0, 0], [0, 0, 1], [0, 0, -1]], dtype=float), 4, axis=0
)
_FACE_AXES = np.repeat(np.array([[0, 2], [0, 2], [1, 2], [1, 2], [0, 1], [0, 1]]), 4, axis=0)  # of u and v
_FACE_TRIANGLES = np.array([[4 * f + a for a in t] for f in range(6) for t in ((0, 1, 2), (0, 2, 3))])
_SQUARE = np.tile([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]], (6, 1))


def box(
    size: tuple[float, float, float],
    center: tuple[float, float, float],
    material: Material,
    top: float = 1.0,
    bottom: float = 1.0,
) -> Part:
    """A box by size (width, depth, height) and centre; `top` and `bottom` scale those faces (a taper)."""
    corners = _CORNERS * np.array(size)
    if top != 1.0 or bottom != 1.0:
        corners[:, :2] *= np.where(_CORNERS[:, 2:] > 0, top, bottom)
    points = corners[_FACE_CORNERS]
    uv = _SQUARE
    if material.scale:
        uv = np.take_along_axis(points, _FACE_AXES, axis=1) / material.scale + 0.5
    return Part(points + np.array(center), _FACE_NORMALS, uv, _FACE_TRIANGLES, material)


def cylinder(
    radius: float,
    height: float,
    center: tuple[float, float, float],
    material: Material,
    top: float | None = None,
    sides: int = 16,
    axis: str = "z",
) -> Part:
    """A cylinder, or a cone when `top` (its upper radius) differs; `center` is the middle of its axis."""
    upper = radius if top is None else top
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    ring = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low = np.hstack([ring * radius, np.full((sides + 1, 1), -height / 2)])
    high = np.hstack([ring * upper, np.full((sides + 1, 1), height / 2)])
    slope = (radius - upper) / max(height, 1e-6)
    side_normals = np.hstack([ring, np.full((sides + 1, 1), slope)])
    side_normals /= np.linalg.norm(side_normals, axis=1, keepdims=True)
    scale = material.scale or 1.0
    around = angle[:, None] * max(radius, upper) / scale
    side_uv = [np.hstack([around, low[:, 2:] / scale]), np.hstack([around, high[:, 2:] / scale])]
    n = sides + 1
    quads = np.array([[i, i + 1, n + i + 1, i, n + i + 1, n + i] for i in range(sides)]).reshape(-1, 3)
    points, normals = [low, high], [side_normals, side_normals]
    uv, triangles, start = side_uv, [quads], 2 * n
    for disc, up in ((low, -1.0), (high, 1.0)):
        middle = np.array([[0.0, 0.0, disc[0, 2]]])
        points.append(np.vstack([middle, disc]))
        normals.append(np.tile([0.0, 0.0, up], (n + 1, 1)))
        reach = max(radius, upper) * 2 if material.scale == 0 else material.scale
        uv.append(np.vstack([middle, disc])[:, :2] / reach + 0.5)
        fan = np.array([[0, i + 1, i + 2] if up > 0 else [0, i + 2, i + 1] for i in range(sides)])
        triangles.append(fan + start)
        start += n + 1
    part = Part(np.vstack(points), np.vstack(normals), np.vstack(uv), np.vstack(triangles), material)
    if axis == "x":
        part = turned(part, 90, "y")
    elif axis == "y":  # the upper disc then faces the viewer (-y), with its texture upright
        part = turned(part, 90, "x")
    part.points = part.points + np.array(center)
    return part


def ellipsoid(
    size: tuple[float, float, float], center: tuple[float, float, float], material: Material, sides: int = 14
) -> Part:
    """An ellipsoid by its three diameters."""
    rings = max(6, sides // 2)
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rings + 1), np.linspace(0, 2 * np.pi, sides + 1))
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    unit = unit.reshape(-1, 3)
    half = np.array(size, dtype=float) / 2
    normals = unit / half
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    scale = material.scale or 1.0
    girth = np.pi * (size[0] + size[1]) / 2
    uv = np.stack(
        [phi.ravel() / (2 * np.pi) * girth / scale, -theta.ravel() / np.pi * size[2] / scale], axis=1
    )
    n = rings + 1
    triangles = [
        tri
        for i in range(sides)
        for j in range(rings)
        for tri in (
            [i * n + j, i * n + j + 1, (i + 1) * n + j + 1],
            [i * n + j, (i + 1) * n + j + 1, (i + 1) * n + j],
        )
    ]
    return Part(unit * half + np.array(center), normals, uv, np.array(triangles), material)


def cushion(
    size: tuple[float, float, float], center: tuple[float, float, float], material: Material, sides: int = 16
) -> Part:
    """A pillow: an ellipsoid whose outline, seen from the front, is stretched to a rounded square."""
    part = ellipsoid((2.0, 2.0, 2.0), (0, 0, 0), material, sides)
    x, y, z = part.normals.T
    square = np.hypot(x, z) / np.maximum(np.abs(x), np.abs(z)).clip(1e-9)  # 1 at the sides, √2 at the corners
    square = np.maximum(square, 1.0)
    points = np.stack([x * square**0.8, np.sign(y) * np.abs(y) ** 1.3, z * square**0.8], axis=1)
    half = np.array(size) / 2
    normals = np.stack([x, y * 2, z], axis=1) / half
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    uv = points[:, [0, 2]] * half[[0, 2]] / (material.scale or 1.0) + 0.5
    return Part(points * half + np.array(center), normals, uv, part.triangles, material)


def panel(width: float, height: float, center: tuple[float, float, float], material: Material) -> Part:
    """An upright rectangle that faces the viewer (-y)."""
    x, y, z = center
    points = np.array(
        [[sx * width / 2, 0, sz * height / 2] for sx, sz in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    )
    uv = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    if material.scale:
        uv = uv * np.array([width, height]) / material.scale
    normals = np.tile([0.0, -1.0, 0.0], (4, 1))
    return Part(points + np.array([x, y, z]), normals, uv, np.array([[0, 1, 2], [0, 2, 3]]), material)


def turned(part: Part, degrees: float, axis: str = "z") -> Part:
    """The part rotated about an axis through the origin, counter-clockwise seen from the tip of the axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    rotation = {
        "x": np.array([[1, 0, 0], [0, c, -s], [0, s, c]]),
        "y": np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]),
        "z": np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]),
    }[axis]
    return replace(part, points=part.points @ rotation.T, normals=part.normals @ rotation.T)


def moved(part: Part, offset: tuple[float, float, float]) -> Part:
    return replace(part, points=part.points + np.array(offset))


def bounds(parts: list[Part]) -> tuple[Array, Array]:
    """Lowest and highest corner, each (3,)."""
    points = np.vstack([p.points for p in parts])
    return points.min(axis=0), points.max(axis=0)
