"""Surfaces lofted along a curve, and cutting surfaces into regions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from attention_atlas.synthetic.mesh import Array, Material, Part


def loft(
    spine: Array, half_width: Array, half_height: Array, material: Material, rings: int = 20, sides: int = 20
) -> tuple[Part, Array, Array]:
    """A tube along a curve in the x-z plane, closed at both ends.

    spine (P, 2): x and z of the points it passes through; half_width, half_height (P,): its half axes there,
    across (y) and within the plane. A monotone cubic (PCHIP), which does not overshoot, connects the points.
    Returns the part and, for each triangle (T,), the position of its middle along the spine (0 .. P - 1) and
    its side: 1 for the upper edge (left of the direction of travel), -1 for the lower one.
    """
    from scipy.interpolate import PchipInterpolator

    knots = np.arange(len(spine), dtype=float)
    along = np.linspace(0, len(spine) - 1, rings)
    through = np.column_stack([spine, half_width, half_height])
    curve = PchipInterpolator(knots, through)(along)
    middle, width, height = curve[:, :2], curve[:, 2].clip(1e-4), curve[:, 3].clip(1e-4)
    tangent = np.gradient(middle, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True).clip(1e-9)
    angle = np.linspace(0, 2 * np.pi, sides + 1)
    across, upwards = np.cos(angle), np.sin(angle)
    upper = np.stack([-tangent[:, 1], tangent[:, 0]], axis=1)
    flat = middle[:, None] + (height[:, None] * upwards)[..., None] * upper[:, None]
    points = np.stack([flat[..., 0], width[:, None] * across, flat[..., 1]], axis=-1)
    normals = _normals(points)
    n = sides + 1
    ring, step = (g.ravel() for g in np.meshgrid(np.arange(rings - 1), np.arange(sides), indexing="ij"))
    a, b, c, d = ring * n + step, ring * n + step + 1, (ring + 1) * n + step + 1, (ring + 1) * n + step
    triangles = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    where = np.tile((along[ring] + along[ring + 1]) / 2, 2)
    side = np.tile(np.sin((angle[step] + angle[step + 1]) / 2), 2)
    flat_points, flat_normals = points.reshape(-1, 3), normals.reshape(-1, 3)
    caps, start, steps = [], len(flat_points), np.arange(sides)
    for end, toward in ((0, -1.0), (rings - 1, 1.0)):
        center = np.array([[middle[end, 0], 0.0, middle[end, 1]]])
        looks = toward * np.array([[tangent[end, 0], 0.0, tangent[end, 1]]])
        rim = points[end]
        flat_points = np.vstack([flat_points, center, rim])
        flat_normals = np.vstack([flat_normals, np.repeat(looks, n + 1, axis=0)])
        fan = start + np.stack([0 * steps, 1 + steps, 2 + steps], 1)
        caps.append(fan if toward > 0 else fan[:, ::-1])
        where = np.concatenate([where, np.full(sides, along[end])])
        side = np.concatenate([side, np.sin((angle[:-1] + angle[1:]) / 2)])
        start += n + 1
    triangles = np.vstack([triangles, *caps])
    uv = np.zeros((len(flat_points), 2))
    return Part(flat_points, flat_normals, uv, triangles, material), where, side


def _normals(points: Array) -> Array:
    """Unit normals (R, S, 3) of a grid of points that closes on itself along its second axis."""
    along = np.gradient(points, axis=0)
    wrapped = np.concatenate([points[:, -2:-1], points, points[:, 1:2]], axis=1)
    around = wrapped[:, 2:] - wrapped[:, :-2]
    normals = np.cross(around, along)
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return np.where(length > 1e-12, normals / length.clip(1e-12), np.array([0.0, 0.0, 1.0]))


def facing(part: Part) -> Array:
    """Mean normal of each triangle, (T, 3)."""
    return part.normals[part.triangles].mean(axis=1)


def cut(part: Part, keep: NDArray[np.bool_], material: Material | None = None) -> Part:
    """The triangles where `keep` (T,) is true; `material`, if given, replaces theirs."""
    chosen = part.triangles[keep]
    wanted = np.zeros(len(part.points), dtype=bool)
    wanted[chosen] = True
    used = np.flatnonzero(wanted)
    triangles = (np.cumsum(wanted) - 1)[chosen]
    return replace(
        part,
        points=part.points[used],
        normals=part.normals[used],
        uv=part.uv[used],
        triangles=triangles.astype(np.int64),
        material=material or part.material,
    )
