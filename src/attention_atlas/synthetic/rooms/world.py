"""Rooms: from seeds to a picture, its exact objects, its plan and its description."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, Scene, SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.render import Picture, Renderer
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.plan_file import plan_row
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.world import Made

LEAST_PIXELS = 12  # a person cannot see an object with fewer visible pixels either
SHELL = ("wall", "floor", "ceiling")
SHELL_SHARE = 0.03  # minimum fraction of the picture at which a wall counts as an object
REDRAWS = 20


class Rooms:
    """`image_size` in pixels (square); a room with fewer visible things than `least_objects` is redrawn."""

    def __init__(self, image_size: int = 144, least_objects: int = 7) -> None:
        if not 32 <= image_size <= 1024:
            raise ConfigError(f"Rooms: image_size: {image_size} is not between 32 and 1024 pixels")
        self.image_size = image_size
        self.least_objects = least_objects
        self._renderer: Renderer | None = None

    def describe_self(self) -> dict[str, Any]:
        return {"world": "rooms", "image_size": self.image_size, "least_objects": self.least_objects}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}  # a window belongs to its process

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """Picture, Scene, plan and description of one room, deterministic in the seeds."""
        from attention_atlas.synthetic.rooms.text import describe

        picture, plan, objects = self._draw(seeds)
        side = self.image_size
        scene = Scene(image_id, f"images/{image_id}.png", side, side, split, objects, plan.category)
        words = np.random.default_rng(np.random.SeedSequence([*seeds, 1]))
        text, phrases, relations = describe(plan, objects, words)
        example = Example(image_id, image_id, text, phrases, relations)
        return Made(picture.rgb, scene, {"descriptions": [example]}, {"plans": plan_row(image_id, plan)})

    def _draw(self, seeds: list[int]) -> tuple[Picture, Plan, list[SceneObject]]:
        if self._renderer is None:
            self._renderer = Renderer(self.image_size)
        for attempt in range(REDRAWS):
            rng = np.random.default_rng(np.random.SeedSequence([*seeds, 0, attempt]))
            room = sample_room(rng)
            picture = self._renderer.draw(room.view)
            objects = scene_objects(room.plan, picture.ids, picture.whole)
            if sum(o.label not in SHELL for o in objects) >= self.least_objects:
                return picture, room.plan, objects
        raise ConfigError(
            f"Rooms: least_objects: no room with {self.least_objects} visible things in {REDRAWS} draws;"
            " use a lower value"
        )


def scene_objects(plan: Plan, ids: NDArray[np.int32], whole: dict[int, int]) -> list[SceneObject]:
    """The visible objects of a plan, by id.

    `ids` (S, S): object id of each pixel; `whole`: number of pixels of each object without occlusion, so that
    occlusion = 1 - visible / whole. Drops objects with fewer than 12 visible pixels, and walls, floor and
    ceiling below 3 % of the picture.
    """
    objects = []
    for placed in plan.objects:
        rows, columns = np.nonzero(ids == placed.id)
        least = SHELL_SHARE * ids.size if placed.label in SHELL else LEAST_PIXELS
        if len(rows) < least:
            continue
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        x1, y1, x2, y2 = (float(edge) for edge in box)
        hidden = 1 - len(rows) / max(whole[placed.id], len(rows))
        objects.append(
            SceneObject(
                id=placed.id,
                label=placed.label,
                attributes=placed.attributes,
                box=(x1, y1, x2, y2),
                area=len(rows),
                occlusion=round(float(hidden), 4),
                text=placed.text,
            )
        )
    return objects
