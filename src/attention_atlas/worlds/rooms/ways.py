"""The ways a thing finds its place. Each is a function (room, step, chosen) -> placed or not, tried several
times. To add a way, write one function with `@way` and name it in categories.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from attention_atlas.worlds.rooms.categories import Step
from attention_atlas.worlds.rooms.layout import Layout, Shape, Thing
from attention_atlas.worlds.rooms.looks import Chosen
from attention_atlas.worlds.rooms.furniture.storage import shelf_levels

Way = Callable[[Layout, Step, Chosen], Thing | None]
WAYS: dict[str, Way] = {}
WALL_TURN = {"back": 0.0, "left": 90.0, "right": -90.0}  # the front then looks into the room
TRIES = 12


def way(function: Way) -> Way:
    WAYS[function.__name__] = function
    return function


def furnish(room: Layout, step: Step) -> None:
    """Do one step of a category. Things of one step look alike more often than not."""
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


def _some_wall(room: Layout) -> str:
    return str(room.rng.choice(["back", "left", "right"], p=[0.5, 0.25, 0.25]))


def _at_wall(
    room: Layout, shape: Shape, wall: str, along: float, z: float, gap: float = 0.01
) -> tuple[float, float, float]:
    """The place of a shape whose back is `gap` from a wall; `along` is x, or y at the side walls."""
    width, depth, _ = room.size
    half = (shape.high - shape.low) / 2
    if wall == "back":
        return (along, depth - half[1] - gap, z)
    side = width / 2 - half[0] - gap
    return (-side if wall == "left" else side, along, z)


def _along(room: Layout, shape: Shape, wall: str) -> float:
    """A random position along a wall."""
    width, depth, _ = room.size
    half = (shape.high - shape.low) / 2
    if wall == "back":
        reach = max(width / 2 - half[0], 0.0)
        return float(room.rng.uniform(-reach, reach))
    return float(room.rng.uniform(0.8, max(depth - half[1], 0.9)))


def _anchor(room: Layout, step: Step) -> Thing | None:
    found = room.of_kind(step.anchor)
    return found[int(room.rng.integers(len(found)))] if found else None


def _facing(turn: float) -> np.ndarray:
    """The direction (x, y) a thing of this turn looks to."""
    angle = math.radians(turn)
    return np.array([math.sin(angle), -math.cos(angle)])


def _wall_along(thing: Thing) -> float:
    return float(thing.middle[0] if thing.placed.wall == "back" else thing.middle[1])


@way
def against(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the floor with its back to a wall."""
    wall = _some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    return room.put(shape, _at_wall(room, shape, wall, _along(room, shape, wall), 0.0), wall=wall)


@way
def corner(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the floor near a corner, or else somewhere at a wall."""
    wall = _some_wall(room)
    shape = room.shape(step.kind, chosen, float(room.rng.uniform(-180, 180)))
    along = _along(room, shape, wall)
    if room.rng.random() < 0.6:
        width, depth, _ = room.size
        half = (shape.high - shape.low) / 2
        near = float(room.rng.uniform(0.02, 0.25))
        if wall == "back":
            along = float(room.rng.choice([-1, 1])) * (width / 2 - half[0] - near)
        else:
            along = depth - half[1] - near
    gap = float(room.rng.uniform(0.02, 0.15))
    return room.put(shape, _at_wall(room, shape, wall, along, 0.0, gap), wall=wall)


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
def open(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """A window, or a door with free floor before it."""
    wall = _some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    door = step.kind == "door"
    z = 0.0 if door else float(room.rng.uniform(0.85, 1.1))
    at = _at_wall(room, shape, wall, _along(room, shape, wall), z, 0.0)
    thing = room.put(shape, at, "wall", wall=wall)
    if thing and door:
        reach = np.array([*(_facing(WALL_TURN[wall]) * 0.7), 0.0])
        room.kept_free.append(
            (np.minimum(thing.low, thing.low + reach), np.maximum(thing.high, thing.high + reach))
        )
    return thing


@way
def drape(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """Curtains before a window that has none."""
    hung = {t.placed.parent for t in room.of_kind(step.kind)}
    bare = [t for t in room.of_kind(step.anchor) if t.placed.id not in hung]
    if not bare:
        return None
    window = bare[0]
    wide, _, tall = window.chosen.size
    wall = window.placed.wall
    chosen = replace(chosen, size=(wide + 0.5, 0.1, min(tall + 0.3, room.size[2] - window.low[2] + 0.1)))
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    at = _at_wall(room, shape, wall, _wall_along(window), float(window.low[2]) - 0.15, 0.07)
    return room.put(shape, at, "wall", parent=window.placed.id, wall=wall)


@way
def hang(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On a wall at a height that suits it."""
    wall = _some_wall(room)
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    low, high = {
        "clock": (1.8, 2.1), "sign": (1.65, 1.95), "towel": (1.1, 1.35), "shelf": (1.35, 1.75),
    }.get(step.kind, (1.45, 1.75))  # fmt: skip
    tall = shape.high[2] - shape.low[2]
    z = min(float(room.rng.uniform(low, high)) - tall / 2, room.size[2] - tall - 0.1)
    at = _at_wall(room, shape, wall, _along(room, shape, wall), z, 0.005)
    return room.put(shape, at, "wall", wall=wall)


@way
def over(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the wall above the anchor."""
    anchor = _anchor(room, step)
    if anchor is None or not anchor.placed.wall:
        return None
    wall = anchor.placed.wall
    shape = room.shape(step.kind, chosen, WALL_TURN[wall])
    z = float(anchor.high[2] + room.rng.uniform(0.1, 0.25))
    return room.put(shape, _at_wall(room, shape, wall, _wall_along(anchor), z, 0.005), "wall", wall=wall)


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


@way
def beside(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """At the same wall, next to the anchor."""
    anchor = _anchor(room, step)
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
    along = _wall_along(anchor) + float(room.rng.choice([-1, 1])) * float(away)
    return room.put(shape, _at_wall(room, shape, wall, along, 0.0), wall=wall)


@way
def before(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """In front of the anchor; a seat then faces it."""
    taken = [t for t in room.of_kind(step.anchor) if not _has_before(room, t, step.kind)]
    if not taken:
        return None
    anchor = taken[0]
    seat = step.kind == "chair"
    facing = _facing(anchor.placed.turn)
    turn = anchor.placed.turn + (180 + room.rng.uniform(-20, 20) if seat else 0.0)
    shape = room.shape(step.kind, chosen, float(turn))
    axis = int(np.argmax(np.abs(facing)))
    reach = (anchor.high - anchor.low)[axis] / 2 + (shape.high - shape.low)[axis] / 2
    gap = room.rng.uniform(0.03, 0.12) if seat else room.rng.uniform(0.3, 0.5)
    aside = room.rng.uniform(-0.2, 0.2) * np.array([facing[1], facing[0]])
    x, y = anchor.middle[:2] + facing * (reach + gap) + aside
    return room.put(shape, (float(x), float(y), 0.0))


def _has_before(room: Layout, anchor: Thing, kind: str) -> bool:
    spot = anchor.middle[:2] + _facing(anchor.placed.turn) * 0.8
    return any(np.linalg.norm(t.middle[:2] - spot) < 0.6 for t in room.of_kind(kind))


@way
def around(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """At one side of a table, facing it."""
    anchor = _anchor(room, step)
    if anchor is None:
        return None
    turn = float(room.rng.choice([0, 0, 90, -90, 180]))
    shape = room.shape(step.kind, chosen, turn)
    away, axis = -_facing(turn), 1 if turn in (0.0, 180.0) else 0
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


@way
def on(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the top of the anchor."""
    anchor = _anchor(room, step)
    if anchor is None:
        return None
    turn = anchor.placed.turn + (0.0 if step.kind in ("tv", "laptop") else room.rng.uniform(-20, 20))
    shape = room.shape(step.kind, chosen, float(turn))
    half = (anchor.high - anchor.low)[:2] / 2 - (shape.high - shape.low)[:2] / 2 - 0.02
    if half.min() < -0.03:
        return None
    half = np.maximum(half, 0.0) * (0.6 if anchor.chosen.shape == "round" else 1.0)
    x, y = anchor.middle[:2] + room.rng.uniform(-half, half)
    z = float(anchor.low[2] + anchor.kind.top * anchor.chosen.size[2])
    return room.put(shape, (float(x), float(y), z), "on", anchor.placed.id)


@way
def seat(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the seat of a sofa or armchair, or on a bed: pillows at its head."""
    anchor = _anchor(room, step)
    if anchor is None:
        return None
    wide, deep, tall = anchor.chosen.size
    shape = room.shape(step.kind, chosen, anchor.placed.turn)
    half = float(shape.chosen.size[0]) / 2
    if step.anchor == "bed":
        x = room.rng.uniform(-1, 1) * (wide / 2 - half - 0.03)
        y, z = deep / 2 - 0.28, 0.5 * tall * 0.98
        if step.kind != "pillow":
            y, z = room.rng.uniform(-0.3, 0.2), 0.5 * tall
    else:
        arm = 0.22
        x = room.rng.uniform(-1, 1) * max(wide / 2 - half - arm, 0.0)
        y, z = (deep / 2 - 0.42, 0.45) if step.anchor == "sofa" else (deep / 2 - 0.32, 0.46)
    back = -_facing(anchor.placed.turn)
    side = np.array([back[1], -back[0]])
    px, py = anchor.middle[:2] + side * x + back * y
    return room.put(shape, (float(px), float(py), float(z)), "on", anchor.placed.id)


@way
def fill(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On one of the inner boards of a bookshelf."""
    anchor = _anchor(room, step)
    if anchor is None:
        return None
    wide, deep, tall = anchor.chosen.size
    level = float(room.rng.choice(shelf_levels(tall))) + 0.025
    chosen = replace(
        chosen, size=(min(chosen.size[0], wide - 0.15), min(chosen.size[1], deep - 0.1), chosen.size[2])
    )
    shape = room.shape(step.kind, chosen, anchor.placed.turn)
    x = room.rng.uniform(-1, 1) * max((wide - 0.1 - chosen.size[0]) / 2 - 0.02, 0.0)
    back = -_facing(anchor.placed.turn)
    px, py = anchor.middle[:2] + np.array([back[1], -back[0]]) * x
    return room.put(shape, (float(px), float(py), level), "in", anchor.placed.id)


@way
def inside(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """In a box or basket, looking out of it."""
    anchor = _anchor(room, step)
    if anchor is None or any(t.placed.parent == anchor.placed.id for t in room.things):
        return None
    wide, deep, tall = anchor.chosen.size
    room_for = min(wide, deep) * 0.72
    w, d, h = chosen.size
    share = min(1.0, room_for / max(w, d))
    if share < 0.6:
        return None
    chosen = replace(chosen, size=(w * share, d * share, h * share), size_word="")
    shape = room.shape(step.kind, chosen, float(room.rng.uniform(-30, 30)))
    x, y = anchor.middle[:2]
    z = float(anchor.low[2]) + anchor.kind.holds * tall
    return room.put(shape, (float(x), float(y), z), "in", anchor.placed.id)
