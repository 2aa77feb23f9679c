"""The camera and the lights of a room."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attention_atlas.synthetic.render import Light
from attention_atlas.synthetic.rooms.plan import Camera, Vector

TINTS = ((1.0, 0.98, 0.94), (1.0, 0.93, 0.8), (0.92, 0.96, 1.0))  # neutral, warm, cool


def choose_camera(size: Vector, rng: np.random.Generator) -> Camera:
    """A camera near the open front of the room, facing its back, or sometimes a corner."""
    width, depth, _ = size
    eye = (rng.uniform(-0.33, 0.33) * width, rng.uniform(-0.9, -0.1), rng.uniform(1.35, 2.05))
    aim = rng.uniform(-0.22, 0.22) * width - 0.25 * eye[0]
    target = (aim, depth * rng.uniform(0.7, 0.9), rng.uniform(0.75, 1.1))
    return Camera(_vector(eye), _vector(target), float(rng.uniform(52, 66)))


def _vector(values: tuple[float, ...]) -> Vector:
    x, y, z = (float(v) for v in values)
    return (x, y, z)


def project(camera: Camera, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points (N, 3) in metres to (N, 3): x and y in the image (-1..1, y up) and the depth in metres.

    Points behind the eye have a depth <= 0 and no meaningful x and y.
    """
    eye = np.array(camera.eye, dtype=float)
    ahead = np.array(camera.target) - eye
    ahead /= np.linalg.norm(ahead)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, ahead)
    away = (points - eye) @ np.stack([right, up, ahead], axis=1)
    depth = np.where(np.abs(away[:, 2:]) < 1e-9, 1e-9, away[:, 2:])
    flat = away[:, :2] / depth / np.tan(np.radians(camera.angle / 2))
    return np.hstack([flat, away[:, 2:]])


def choose_lights(size: Vector, rng: np.random.Generator) -> tuple[list[Light], float]:
    """One distant light from above the viewer, and the ambient fraction."""
    width, depth, height = size
    side = rng.uniform(-1.1, 1.1) * width
    position = (side, rng.uniform(-4.0, -1.0), height + rng.uniform(0.8, 3.0))
    tint = TINTS[int(rng.integers(len(TINTS)))]
    light = Light(_vector(position), (0.0, depth * 0.6, 0.5), tint, float(rng.uniform(0.4, 0.68)))
    return [light], float(rng.uniform(0.36, 0.48))
