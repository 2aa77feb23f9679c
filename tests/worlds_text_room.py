"""A hand-made room whose relations can be read off its numbers, and the boxes an image of it would have."""

from __future__ import annotations

import numpy as np

from attention_atlas.data.corpus import SceneObject
from attention_atlas.synthetic.rooms.plan import Camera, Placed, Plan
from attention_atlas.synthetic.rooms.view import project

SIDE = 144
FLOOR, CEILING, BACK, LEFT, RIGHT = range(5)
TABLE, LAMP, SOFA, PAINTING, CHAIR_L, CHAIR_R, RUG, PLANT, BALL, BOX, HANGING, DOOR, SIGN = range(5, 18)


def room(eye: tuple[float, float, float] = (0.0, -1.5, 1.6), target=(0.0, 3.0, 0.9)) -> Plan:
    """4 m wide, 4 m deep, x from -2 to 2, y from 0 to 4."""
    objects = [
        Placed(FLOOR, "floor", (0, 0.75, 0), (4, 6.5, 0), color="brown", material="wooden"),
        Placed(CEILING, "ceiling", (0, 0.75, 2.6), (4, 6.5, 0), color="white"),
        Placed(BACK, "wall", (0, 4, 1.3), (4, 0, 2.6), color="blue", wall="back"),
        Placed(LEFT, "wall", (-2, 0.75, 1.3), (0, 6.5, 2.6), color="blue", wall="left"),
        Placed(RIGHT, "wall", (2, 0.75, 1.3), (0, 6.5, 2.6), color="blue", wall="right"),
        Placed(
            TABLE,
            "table",
            (0, 2, 0.375),
            (1.2, 0.8, 0.75),
            color="brown",
            material="wooden",
            support="on",
            parent=RUG,
        ),
        Placed(LAMP, "lamp", (0.2, 2, 1.0), (0.3, 0.3, 0.5), color="red", support="on", parent=TABLE),
        Placed(SOFA, "sofa", (0, 3.54, 0.4), (2, 0.9, 0.8), color="green", wall="back"),
        Placed(PAINTING, "painting", (0, 3.98, 1.7), (0.8, 0.04, 0.6), support="wall", wall="back"),
        Placed(CHAIR_L, "chair", (-0.95, 2, 0.5), (0.45, 0.45, 1.0), color="white"),
        Placed(CHAIR_R, "chair", (0.95, 2, 0.5), (0.45, 0.45, 1.0), color="red"),
        Placed(RUG, "rug", (0, 2, 0.01), (1.6, 1.2, 0.02), color="yellow", pattern="striped"),
        Placed(PLANT, "plant", (-1.7, 3.7, 0.6), (0.5, 0.5, 1.2), color="green", size_word="tall"),
        Placed(BALL, "ball", (1.5, 1.2, 0.3), (0.25, 0.25, 0.25), color="pink", support="in", parent=BOX),
        Placed(BOX, "box", (1.5, 1.2, 0.2), (0.5, 0.4, 0.4), color="blue"),
        Placed(HANGING, "ceiling lamp", (0, 2, 2.3), (0.5, 0.5, 0.6), color="yellow", support="ceiling"),
        Placed(DOOR, "door", (-1.96, 1.5, 1.0), (0.07, 0.9, 2.0), color="white", support="wall", wall="left"),
        Placed(
            SIGN,
            "sign",
            (1.98, 2.5, 1.6),
            (0.04, 1.0, 0.5),
            color="white",
            support="wall",
            wall="right",
            text="OPEN",
        ),
    ]
    return Plan("living room", (4.0, 4.0, 2.6), Camera(eye, target, 70.0), objects)


def seen(plan: Plan) -> list[SceneObject]:
    """Every object as if none hid another: the box of its projected bounds, 60 % of it visible."""
    found = []
    for p in plan.objects:
        if p.label in ("floor", "ceiling", "wall"):
            found.append(SceneObject(p.id, p.label, p.attributes, (0, 0, SIDE, SIDE), 4000))
            continue
        half = np.array(p.size) / 2
        corners = np.array(
            [np.array(p.center) + half * s for s in np.array(list(np.ndindex(2, 2, 2))) * 2 - 1]
        )
        x, y, depth = project(plan.camera, corners).T
        if depth.min() < 0.1:
            continue
        left, right = np.clip((np.array([x.min(), x.max()]) + 1) / 2 * SIDE, 0, SIDE)
        top, bottom = np.clip((1 - np.array([y.max(), y.min()])) / 2 * SIDE, 0, SIDE)
        area = int((right - left) * (bottom - top) * 0.6)
        if area > 0:
            box = (float(left), float(top), float(right), float(bottom))
            found.append(SceneObject(p.id, p.label, p.attributes, box, area, 0.0, p.text))
    return found
