"""Signed rooms: furnished rooms with several signs on their walls, with words from a long list.

The rooms of `rooms` have at most one sign and only thirty texts in total: a text can be guessed, and there is
no choice. Here every image has several signs, usually of different colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.data.corpus import SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.render import Rendering, View
from attention_atlas.synthetic.rooms.categories import CATEGORIES
from attention_atlas.synthetic.rooms.kinds import KINDS
from attention_atlas.synthetic.rooms.layout import Layout, Thing
from attention_atlas.synthetic.rooms.looks import choose
from attention_atlas.synthetic.rooms.plan import Camera, Plan
from attention_atlas.synthetic.rooms.sample import Room
from attention_atlas.synthetic.rooms.shell import build_shell
from attention_atlas.synthetic.rooms.sign_words import TEXT_HIDDEN, draw_text
from attention_atlas.synthetic.rooms.view import choose_camera, choose_lights
from attention_atlas.synthetic.rooms.ways import furnish
from attention_atlas.synthetic.rooms.ways.base import WALL_TURN, at_wall, random_along
from attention_atlas.synthetic.rooms.world import Rooms, scene_objects
from attention_atlas.synthetic.world import RenderedWorld

TRIES = 30
OWN_COLOUR = 0.8  # probability that a sign must differ in colour from all others
WALL_SHARES = {"back": 0.76, "left": 0.12, "right": 0.12}
HEIGHTS = (1.0, 2.1)  # of the lower edge, metres


class SignedRooms(Rooms):
    """`image_size` in pixels (square). Rooms with fewer readable signs than `signs[0]` are redrawn;
    `signs[1]` is the maximum."""

    def __init__(self, image_size: int = 256, signs: Sequence[int] = (3, 5)) -> None:
        RenderedWorld.__init__(self, image_size, 64)
        self.least, self.most = signs
        if not 1 <= self.least <= self.most <= 6:
            raise ConfigError(f"SignedRooms: signs: {list(signs)} is not a range within 1..6")
        self.too_few = f"signs: no room with {self.least} readable signs"

    def describe_self(self) -> dict[str, Any]:
        return {"world": "rooms_with_signs", "image_size": self.image_size, "signs": [self.least, self.most]}

    def sample(self, rng: np.random.Generator, split: str) -> tuple[Plan, View] | None:
        room = sample_signed_room(rng, split, int(rng.integers(self.least, self.most + 1)))
        signs = sum(bool(o.text) for o in room.plan.objects)
        return (room.plan, room.view) if signs >= self.least else None

    def visible(self, shown: Plan, image: Rendering) -> list[SceneObject] | None:
        objects = scene_objects(shown, image.ids, image.whole)
        return objects if len(readable(objects)) >= self.least else None


def readable(objects: Sequence[SceneObject]) -> list[SceneObject]:
    """The fully visible objects with words on them."""
    return [o for o in objects if o.text and o.occlusion <= TEXT_HIDDEN]


def sample_signed_room(rng: np.random.Generator, split: str, count: int) -> Room:
    """Sample a room with up to `count` signs, furnished around them, deterministic in the generator's
    state."""
    names = list(CATEGORIES)
    weights = np.array([CATEGORIES[n].weight for n in names])
    category = CATEGORIES[str(rng.choice(names, p=weights / weights.sum()))]
    width, depth, height = (float(rng.uniform(a, b)) for a, b in ((3.8, 5.2), (3.2, 4.2), (2.5, 2.8)))
    size = (round(width, 3), round(depth, 3), round(height, 3))
    camera = _rounded(choose_camera(size, rng))
    lights, ambient = choose_lights(size, rng)
    shell = build_shell(category, size, rng)
    layout = Layout(category, size, camera, rng, first_id=len(shell))
    colours: set[str] = set()
    taken: set[str] = set()
    for _ in range(count):
        thing = hang_sign(layout, split, taken, colours)
        if thing is not None:
            taken |= set(thing.placed.text.lower().split())
            colours.add(thing.placed.color)
    for step in category.steps:
        if step.kind not in ("sign", "painting"):
            furnish(layout, step)
    layout.settle()
    objects = [placed for placed, _ in shell] + [t.placed for t in layout.things]
    solids = [(placed.id, parts) for placed, parts in shell]
    solids += [(t.placed.id, t.parts) for t in layout.things]
    return Room(
        Plan(category.name, size, camera, objects),
        View(solids, camera.eye, camera.target, camera.angle, lights, ambient),
    )


def _rounded(camera: Camera) -> Camera:
    """The camera rounded to millimetres, like the sizes of rooms."""
    eye, target = (tuple(round(v, 3) for v in point) for point in (camera.eye, camera.target))
    return Camera(eye, target, round(camera.angle, 2))  # type: ignore[arg-type]


def hang_sign(room: Layout, split: str, taken: set[str], colours: set[str]) -> Thing | None:
    """One more sign on a wall, or None where none fits."""
    rng = room.rng
    text = draw_text(rng, split, taken)
    own = rng.random() < OWN_COLOUR
    chosen = choose(KINDS["sign"], rng, text)
    while own and chosen.color in colours and len(colours) < len(KINDS["sign"].colors):
        chosen = choose(KINDS["sign"], rng, text)
    for _ in range(TRIES):
        wall = str(rng.choice(list(WALL_SHARES), p=list(WALL_SHARES.values())))
        shape = room.shape("sign", chosen, WALL_TURN[wall])
        tall = float(shape.high[2] - shape.low[2])
        z = min(float(rng.uniform(*HEIGHTS)), room.size[2] - tall - 0.05)
        at = at_wall(room, shape, wall, random_along(room, shape, wall), z, 0.005)
        thing = room.put(shape, at, "wall", wall=wall)
        if thing is not None:
            return thing
    return None
