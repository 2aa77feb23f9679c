"""Places on walls and under the ceiling."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attention_atlas.synthetic.rooms.categories import Step
from attention_atlas.synthetic.rooms.layout import Layout, Thing
from attention_atlas.synthetic.rooms.looks import Chosen
from attention_atlas.synthetic.rooms.ways.base import (
    WALL_TURN,
    at_wall,
    facing,
    random_along,
    some_anchor,
    some_wall,
    wall_along,
    way,
)


@way
def open(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """A window, or a door with free floor in front of it."""
    wall = some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    door = step.kind == "door"
    z = 0.0 if door else float(room.rng.uniform(0.85, 1.1))
    at = at_wall(room, shape, wall, random_along(room, shape, wall), z, 0.0)
    thing = room.put(shape, at, "wall", wall=wall)
    if thing and door:
        reach = np.array([*(facing(WALL_TURN[wall]) * 0.7), 0.0])
        room.kept_free.append(
            (np.minimum(thing.low, thing.low + reach), np.maximum(thing.high, thing.high + reach))
        )
    return thing


@way
def drape(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """Curtains in front of a window that has none."""
    hung = {t.placed.parent for t in room.of_kind(step.kind)}
    bare = [t for t in room.of_kind(step.anchor) if t.placed.id not in hung]
    if not bare:
        return None
    window = bare[0]
    wide, _, tall = window.chosen.size
    wall = window.placed.wall
    chosen = replace(chosen, size=(wide + 0.5, 0.1, min(tall + 0.3, room.size[2] - window.low[2] + 0.1)))
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    at = at_wall(room, shape, wall, wall_along(window), float(window.low[2]) - 0.15, 0.07)
    thing = room.put(shape, at, "wall", parent=window.placed.id, wall=wall)
    if thing:  # nothing hangs behind them
        back = np.array([*(-facing(WALL_TURN[wall]) * 0.2), 0.0])
        room.kept_free.append(
            (np.minimum(thing.low, thing.low + back), np.maximum(thing.high, thing.high + back))
        )
    return thing


@way
def hang(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On a wall at a height that suits it."""
    wall = some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    low, high = {
        "clock": (1.8, 2.1), "sign": (1.65, 1.95), "towel": (1.1, 1.35), "shelf": (1.35, 1.75),
    }.get(step.kind, (1.45, 1.75))  # fmt: skip
    tall = shape.high[2] - shape.low[2]
    z = min(float(room.rng.uniform(low, high)) - tall / 2, room.size[2] - tall - 0.1)
    at = at_wall(room, shape, wall, random_along(room, shape, wall), z, 0.005)
    return room.put(shape, at, "wall", wall=wall)


@way
def over(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the wall above the anchor."""
    anchor = some_anchor(room, step)
    if anchor is None or not anchor.placed.wall:
        return None
    wall = anchor.placed.wall
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    z = float(anchor.high[2] + room.rng.uniform(0.1, 0.25))
    return room.put(shape, at_wall(room, shape, wall, wall_along(anchor), z, 0.005), "wall", wall=wall)


@way
def ceiling(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """Hanging down, above a table if there is one."""
    width, depth, height = room.size
    x, y = room.rng.uniform(-0.3, 0.3) * width, depth * room.rng.uniform(0.4, 0.75)
    tables = room.of_kind("table")
    if tables and room.rng.random() < 0.8:
        x, y = tables[0].middle[:2] + room.rng.uniform(-0.1, 0.1, 2)
    shape = room.shape(step.kind, chosen)
    return room.put(shape, (float(x), float(y), height - float(shape.high[2] - shape.low[2])), "ceiling")
