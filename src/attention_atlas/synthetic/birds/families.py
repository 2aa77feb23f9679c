"""Body plans. Lengths are relative to the body's length; to add a family, add a row."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Family:
    """Sampling ranges of a family. Angles in degrees, 0 = horizontal."""

    pitch: Range  # of the body: tail low, breast high
    girth: Range  # half the body's height
    neck: Range  # length between shoulder and head
    neck_angle: Range
    head: Range  # radius
    beak: Range  # length, in radii of the head
    beak_width: Range  # at its root, in radii of the head
    bend: float  # how far the tip of the beak points down, in lengths of the beak
    legs: Range
    tail: Range
    grounds: tuple[str, ...]  # what it sits on (kinds of backdrop.py); "air" = it flies
    weight: float = 1.0


FAMILIES: dict[str, Family] = {
    "songbird": Family(
        (18, 42), (0.25, 0.31), (0.12, 0.2), (55, 75), (0.19, 0.23), (0.6, 1.0), (0.28, 0.36), 0.0,
        (0.16, 0.26), (0.35, 0.75), ("branch", "branch", "branch", "grass", "air"), 3.0,
    ),
    "finch": Family(
        (22, 45), (0.29, 0.35), (0.1, 0.16), (60, 80), (0.21, 0.26), (0.5, 0.7), (0.46, 0.58), 0.05,
        (0.14, 0.2), (0.3, 0.5), ("branch", "branch", "grass", "snow", "air"), 2.0,
    ),
    "wader": Family(
        (8, 22), (0.21, 0.27), (0.34, 0.6), (62, 85), (0.14, 0.17), (1.7, 2.7), (0.24, 0.3), 0.06,
        (0.55, 0.85), (0.18, 0.3), ("sand", "grass", "sand", "air"), 1.5,
    ),
    "duck": Family(
        (2, 10), (0.26, 0.31), (0.22, 0.34), (60, 80), (0.17, 0.2), (0.9, 1.3), (0.4, 0.5), 0.0,
        (0.14, 0.2), (0.18, 0.3), ("water", "water", "grass", "air"), 1.5,
    ),
    "hawk": Family(
        (45, 65), (0.25, 0.31), (0.1, 0.18), (65, 85), (0.19, 0.23), (0.55, 0.8), (0.4, 0.5), 0.55,
        (0.2, 0.28), (0.5, 0.75), ("branch", "branch", "rock", "air"), 1.5,
    ),
    "crow": Family(
        (18, 35), (0.24, 0.29), (0.14, 0.22), (45, 65), (0.18, 0.21), (1.1, 1.5), (0.4, 0.48), 0.12,
        (0.26, 0.36), (0.5, 0.7), ("branch", "grass", "rock", "snow", "air"), 1.5,
    ),
}  # fmt: skip
