"""Rooms: from seeds to an image, its exact objects, its plan and its description."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, SceneObject
from attention_atlas.synthetic.render import Rendering, View
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.plan_file import plan_row
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.world import Made, RenderedWorld, seen

LEAST_PIXELS = 12  # a person would not see an object with fewer visible pixels
SHELL = ("wall", "floor", "ceiling")
SHELL_SHARE = 0.03  # minimum fraction of the image at which a wall counts as an object


class Rooms(RenderedWorld):
    """`image_size` in pixels (square); a room with fewer visible things than `least_objects` is redrawn."""

    def __init__(self, image_size: int = 144, least_objects: int = 7) -> None:
        super().__init__(image_size)
        self.least = least_objects
        self.too_few = f"least_objects: no room with {least_objects} visible things"

    def describe_self(self) -> dict[str, Any]:
        return {"world": "rooms", "image_size": self.image_size, "least_objects": self.least}

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """Image, Scene, plan and description of one room, deterministic in the seeds."""
        from attention_atlas.synthetic.rooms.text import describe

        image, plan, objects = self.draw(split, seeds)
        scene = self.scene(image_id, split, objects, plan.category)
        words = np.random.default_rng(np.random.SeedSequence([*seeds, 1]))
        text, phrases, relations = describe(plan, objects, words)
        example = Example(image_id, image_id, text, phrases, relations)
        return Made(image.rgb, scene, {"descriptions": [example]}, {"plans": plan_row(image_id, plan)})

    def sample(self, rng: np.random.Generator, split: str) -> tuple[Plan, View] | None:
        room = sample_room(rng)
        return room.plan, room.view

    def visible(self, shown: Plan, image: Rendering) -> list[SceneObject] | None:
        objects = scene_objects(shown, image.ids, image.whole)
        return objects if sum(o.label not in SHELL for o in objects) >= self.least else None


def scene_objects(plan: Plan, ids: NDArray[np.int32], whole: dict[int, int]) -> list[SceneObject]:
    """The visible objects of a plan, by id.

    `ids` (S, S): object id of each pixel; `whole`: number of pixels of each object without occlusion, so that
    occlusion = 1 - visible / whole. Drops objects with fewer than 12 visible pixels, and walls, floor and
    ceiling below 3 % of the image.
    """
    objects = []
    for placed in plan.objects:
        mask = ids == placed.id
        if mask.sum() >= (SHELL_SHARE * ids.size if placed.label in SHELL else LEAST_PIXELS):
            about = (placed.id, placed.label, placed.attributes)
            objects.append(seen(*about, mask, whole[placed.id], placed.text))
    return objects
