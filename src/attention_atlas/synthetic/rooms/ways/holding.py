"""Places on and in other things."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from attention_atlas.synthetic.rooms.categories import Step
from attention_atlas.synthetic.rooms.furniture.storage import shelf_levels
from attention_atlas.synthetic.rooms.layout import Layout, Thing
from attention_atlas.synthetic.rooms.looks import Chosen
from attention_atlas.synthetic.rooms.ways.base import facing, some_anchor, way


@way
def on(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On the top of the anchor."""
    anchor = some_anchor(room, step)
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
    anchor = some_anchor(room, step)
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
    back = -facing(anchor.placed.turn)
    side = np.array([back[1], -back[0]])
    px, py = anchor.middle[:2] + side * x + back * y
    return room.put(shape, (float(px), float(py), float(z)), "on", anchor.placed.id)


@way
def fill(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """On one of the inner boards of a bookshelf."""
    anchor = some_anchor(room, step)
    if anchor is None:
        return None
    wide, deep, tall = anchor.chosen.size
    level = float(room.rng.choice(shelf_levels(tall))) + 0.025
    chosen = replace(
        chosen, size=(min(chosen.size[0], wide - 0.15), min(chosen.size[1], deep - 0.1), chosen.size[2])
    )
    shape = room.shape(step.kind, chosen, anchor.placed.turn)
    x = room.rng.uniform(-1, 1) * max((wide - 0.1 - chosen.size[0]) / 2 - 0.02, 0.0)
    back = -facing(anchor.placed.turn)
    px, py = anchor.middle[:2] + np.array([back[1], -back[0]]) * x
    return room.put(shape, (float(px), float(py), level), "in", anchor.placed.id)


@way
def inside(room: Layout, step: Step, chosen: Chosen) -> Thing | None:
    """In a box or basket, looking out of it."""
    anchor = some_anchor(room, step)
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
