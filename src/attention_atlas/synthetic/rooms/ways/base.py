"""The ways of placing objects. Each is a function (room, step, chosen) -> placed or not, tried several times.
To add a way, write a function with `@way` in a module of this folder and use it in a category.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from attention_atlas.synthetic.rooms.categories import Step
from attention_atlas.synthetic.rooms.layout import Layout, Shape, Thing
from attention_atlas.synthetic.rooms.looks import Chosen

Way = Callable[[Layout, Step, Chosen], Thing | None]
WAYS: dict[str, Way] = {}
WALL_TURN = {"back": 0.0, "left": 90.0, "right": -90.0}  # the front then faces the room
TRIES = 12


def way(function: Way) -> Way:
    WAYS[function.__name__] = function
    return function


def furnish(room: Layout, step: Step) -> None:
    """Do one step of a category. Objects of one step usually look alike."""
    if room.rng.random() >= step.chance:
        return
    chosen = room.choose(step.kind)
    alike = step.way in ("around", "drape") or room.rng.random() < 0.5
    for number in range(int(room.rng.integers(step.times[0], step.times[1] + 1))):
        if number and not alike:
            chosen = room.choose(step.kind)
        elif number:
            look = replace(chosen.look, seed=int(room.rng.integers(10_000)))
            chosen = replace(chosen, look=look)
        for _ in range(TRIES):
            if WAYS[step.way](room, step, chosen):
                break


def some_wall(room: Layout) -> str:
    return str(room.rng.choice(["back", "left", "right"], p=[0.5, 0.25, 0.25]))


def at_wall(
    room: Layout, shape: Shape, wall: str, along: float, z: float, gap: float = 0.01
) -> tuple[float, float, float]:
    """The place of a shape whose back is `gap` from a wall; `along` is x, or y at the side walls."""
    width, depth, _ = room.size
    half = (shape.high - shape.low) / 2
    if wall == "back":
        return (along, depth - half[1] - gap, z)
    side = width / 2 - half[0] - gap
    return (-side if wall == "left" else side, along, z)


def random_along(room: Layout, shape: Shape, wall: str) -> float:
    """A random position along a wall."""
    width, depth, _ = room.size
    half = (shape.high - shape.low) / 2
    if wall == "back":
        reach = max(width / 2 - half[0], 0.0)
        return float(room.rng.uniform(-reach, reach))
    return float(room.rng.uniform(0.8, max(depth - half[1], 0.9)))


def some_anchor(room: Layout, step: Step) -> Thing | None:
    found = room.of_kind(step.anchor)
    return found[int(room.rng.integers(len(found)))] if found else None


def facing(turn: float) -> np.ndarray:
    """The direction (x, y) that an object of this rotation faces."""
    angle = math.radians(turn)
    return np.array([math.sin(angle), -math.cos(angle)])


def wall_along(thing: Thing) -> float:
    return float(thing.middle[0] if thing.placed.wall == "back" else thing.middle[1])
