"""Tabletop: from seeds to an image, its exact objects, their positions and a full description."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from attention_atlas.data.corpus import SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.render import Rendering, View
from attention_atlas.synthetic.tabletop.describe import describe
from attention_atlas.synthetic.tabletop.layout import Laid, lay_table
from attention_atlas.synthetic.tabletop.table import Table, table_row
from attention_atlas.synthetic.world import Made, RenderedWorld, seen

LEAST_SHARE = 0.004  # minimum visible fraction of the image of each shape (37 of 9,216 pixels)
MOST_HIDDEN = 0.7


class Tabletop(RenderedWorld):
    """`image_size` in pixels (square); `least_objects` to `most_objects` shapes, all of them visible."""

    too_few = "most_objects: no table with all shapes visible"

    def __init__(self, image_size: int = 96, least_objects: int = 3, most_objects: int = 8) -> None:
        super().__init__(image_size)
        if not 1 <= least_objects <= most_objects <= 10:
            raise ConfigError(
                f"Tabletop: least_objects {least_objects} and most_objects {most_objects} must be"
                " 1 <= least <= most <= 10"
            )
        self.least, self.most = least_objects, most_objects

    def describe_self(self) -> dict[str, Any]:
        return {"world": "tabletop", "image_size": self.image_size, "objects": [self.least, self.most]}

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """Image, Scene, row of tables.jsonl and description of one table, deterministic in the seeds."""
        image, laid, objects = self.draw(split, seeds)
        scene = self.scene(image_id, split, objects)
        row = table_row(image_id, laid.table, dataclasses.asdict(laid.camera), laid.centers)
        words = np.random.default_rng(np.random.SeedSequence([*seeds, 1]))
        return Made(
            image.rgb, scene, {"descriptions": [describe(image_id, laid.table, words)]}, {"tables": row}
        )

    def sample(self, rng: np.random.Generator, split: str) -> tuple[Laid, View] | None:
        laid = lay_table(rng, self.least, self.most)
        return laid, laid.view

    def visible(self, shown: Laid, image: Rendering) -> list[SceneObject] | None:
        return scene_objects(shown.table, image)


def scene_objects(table: Table, image: Rendering) -> list[SceneObject] | None:
    """The shapes with box, visible area and hidden fraction; None if one of them is hardly visible."""
    objects = []
    for item in table.items:
        mask, whole = image.ids == item.id, image.whole[item.id]
        area = int(mask.sum())
        if area < LEAST_SHARE * mask.size or 1 - area / max(whole, area) > MOST_HIDDEN:
            return None
        objects.append(seen(item.id, item.shape, item.attributes, mask, whole))
    return objects
