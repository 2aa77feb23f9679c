"""Tabletop: from seeds to a picture, its exact objects, their positions and a full description."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from attention_atlas.data.corpus import Scene, SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.render import Picture, Renderer
from attention_atlas.synthetic.tabletop.describe import describe
from attention_atlas.synthetic.tabletop.layout import Laid, lay_table
from attention_atlas.synthetic.tabletop.table import Table, table_row
from attention_atlas.synthetic.world import Made

LEAST_SHARE = 0.004  # minimum visible fraction of the picture of each shape (37 of 9,216 pixels)
MOST_HIDDEN = 0.7
REDRAWS = 20


class Tabletop:
    """`image_size` in pixels (square); `least_objects` to `most_objects` shapes, all of them visible."""

    def __init__(self, image_size: int = 96, least_objects: int = 3, most_objects: int = 8) -> None:
        if not 32 <= image_size <= 1024:
            raise ConfigError(f"Tabletop: image_size: {image_size} is not between 32 and 1024 pixels")
        if not 1 <= least_objects <= most_objects <= 10:
            raise ConfigError(
                f"Tabletop: least_objects {least_objects} and most_objects {most_objects} must be"
                " 1 <= least <= most <= 10"
            )
        self.image_size, self.least, self.most = image_size, least_objects, most_objects
        self._renderer: Renderer | None = None

    def describe_self(self) -> dict[str, Any]:
        return {"world": "tabletop", "image_size": self.image_size, "objects": [self.least, self.most]}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}  # a window belongs to its process

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """Picture, Scene, row of tables.jsonl and description of one table, deterministic in the seeds."""
        picture, laid, objects = self._draw(seeds)
        side = self.image_size
        scene = Scene(image_id, f"images/{image_id}.png", side, side, split, objects)
        row = table_row(image_id, laid.table, dataclasses.asdict(laid.camera), laid.centers)
        words = np.random.default_rng(np.random.SeedSequence([*seeds, 1]))
        return Made(
            picture.rgb, scene, {"descriptions": [describe(image_id, laid.table, words)]}, {"tables": row}
        )

    def _draw(self, seeds: list[int]) -> tuple[Picture, Laid, list[SceneObject]]:
        if self._renderer is None:
            self._renderer = Renderer(self.image_size)
        for attempt in range(REDRAWS):
            rng = np.random.default_rng(np.random.SeedSequence([*seeds, 0, attempt]))
            laid = lay_table(rng, self.least, self.most)
            picture = self._renderer.draw(laid.view)
            objects = scene_objects(laid.table, picture)
            if objects is not None:
                return picture, laid, objects
        raise ConfigError(
            f"Tabletop: most_objects: no table with all shapes visible in {REDRAWS} draws; lower it"
        )


def scene_objects(table: Table, picture: Picture) -> list[SceneObject] | None:
    """The shapes with box, visible area and hidden fraction; None if one of them is hardly visible."""
    objects = []
    for item in table.items:
        rows, columns = np.nonzero(picture.ids == item.id)
        if len(rows) < LEAST_SHARE * picture.ids.size:
            return None
        hidden = 1 - len(rows) / max(picture.whole[item.id], len(rows))
        if hidden > MOST_HIDDEN:
            return None
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        x1, y1, x2, y2 = (float(edge) for edge in edges)
        objects.append(
            SceneObject(
                id=item.id,
                label=item.shape,
                attributes=item.attributes,
                box=(x1, y1, x2, y2),
                area=len(rows),
                occlusion=round(float(hidden), 4),
            )
        )
    return objects
