"""Places on the floor."""

from __future__ import annotations

import math

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
def against(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the floor with its back to a wall."""
    wall = some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    return room.put(shape, at_wall(room, shape, wall, random_along(room, shape, wall), 0.0), wall=wall)


@way
def corner(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the floor near a corner, or else somewhere at a wall."""
    wall = some_wall(room)
    shape = room.shape(step.kind, chosen, float(room.rng.uniform(-180, 180)))
    along = random_along(room, shape, wall)
    if room.rng.random() < 0.6:
        width, depth, _ = room.size
        half = (shape.high - shape.low) / 2
        near = float(room.rng.uniform(0.02, 0.25))
        if wall == "back":
            along = float(room.rng.choice([-1, 1])) * (width / 2 - half[0] - near)
        else:
            along = depth - half[1] - near
    gap = float(room.rng.uniform(0.02, 0.15))
    return room.put(shape, at_wall(room, shape, wall, along, 0.0, gap), wall=wall)


@way
def free(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """Somewhere on the floor; large things in the middle and square to the walls."""
    width, depth, _ = room.size
    large = step.kind == "table"
    shape = room.shape(step.kind, chosen, 0.0 if large else float(room.rng.uniform(-35, 35)))
    if large:
        x, y = room.rng.uniform(-0.2, 0.2) * width, depth * room.rng.uniform(0.42, 0.62)
    else:
        x, y = room.rng.uniform(-0.46, 0.46) * width, room.rng.uniform(0.9, depth - 0.4)
    return room.put(shape, (float(x), float(y), 0.0))


@way
def angled(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the floor, away from the middle, looking towards it."""
    width, depth, _ = room.size
    x, y = room.rng.uniform(-0.42, 0.42) * width, room.rng.uniform(0.4, 0.85) * depth
    towards = math.degrees(math.atan2(-x, -(depth * 0.4 - y)))
    turn = towards + room.rng.uniform(-25, 25)
    return room.put(room.shape(step.kind, chosen, float(turn)), (float(x), float(y), 0.0))


@way
def beside(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """At the same wall, next to the anchor."""
    anchor = some_anchor(room, step)
    if anchor is None or not anchor.placed.wall:
        return None
    wall = anchor.placed.wall
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    axis = 0 if wall == "back" else 1
    away = (
        (anchor.high - anchor.low)[axis] / 2
        + (shape.high - shape.low)[axis] / 2
        + room.rng.uniform(0.05, 0.15)
    )
    along = wall_along(anchor) + float(room.rng.choice([-1, 1])) * float(away)
    return room.put(shape, at_wall(room, shape, wall, along, 0.0), wall=wall)


@way
def before(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """In front of the anchor; a seat then faces it."""
    taken = [t for t in room.of_kind(step.anchor) if not _has_before(room, t, step.kind)]
    if not taken:
        return None
    anchor = taken[0]
    seat = step.kind == "chair"
    ahead = facing(anchor.placed.turn)
    turn = anchor.placed.turn + (180 + room.rng.uniform(-20, 20) if seat else 0.0)
    shape = room.shape(step.kind, chosen, float(turn))
    axis = int(np.argmax(np.abs(ahead)))
    reach = (anchor.high - anchor.low)[axis] / 2 + (shape.high - shape.low)[axis] / 2
    gap = room.rng.uniform(0.03, 0.12) if seat else room.rng.uniform(0.3, 0.5)
    aside = room.rng.uniform(-0.2, 0.2) * np.array([ahead[1], ahead[0]])
    x, y = anchor.middle[:2] + ahead * (reach + gap) + aside
    return room.put(shape, (float(x), float(y), 0.0))


def _has_before(room: Layout, anchor: Thing, kind: str) -> bool:
    spot = anchor.middle[:2] + facing(anchor.placed.turn) * 0.8
    return any(np.linalg.norm(t.middle[:2] - spot) < 0.6 for t in room.of_kind(kind))


@way
def around(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """At one side of a table, facing it."""
    anchor = some_anchor(room, step)
    if anchor is None:
        return None
    turn = float(room.rng.choice([0, 0, 90, -90, 180]))
    shape = room.shape(step.kind, chosen, turn)
    away, axis = -facing(turn), 1 if turn in (0.0, 180.0) else 0
    reach = (anchor.high - anchor.low)[axis] / 2 + (shape.high - shape.low)[axis] / 2
    spread = max((anchor.high - anchor.low)[1 - axis] / 2 - 0.3, 0.05)
    x, y = anchor.middle[:2] + away * (reach + room.rng.uniform(0.03, 0.15))
    aside = room.rng.uniform(-spread, spread)
    x, y = (x + aside, y) if axis == 1 else (x, y + aside)
    return room.put(shape, (float(x), float(y), 0.0))


@way
def under(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """A rug in the middle of the floor, or below a table."""
    width, depth, _ = room.size
    x, y = room.rng.uniform(-0.15, 0.15) * width, depth * room.rng.uniform(0.35, 0.6)
    tables = room.of_kind("coffee table") + room.of_kind("table")
    if tables and room.rng.random() < 0.7:
        x, y = tables[0].middle[:2]
    return room.put(room.shape(step.kind, chosen), (float(x), float(y), 0.002))
