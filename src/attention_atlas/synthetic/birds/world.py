"""Birds: from seeds to an image of one bird, exact masks of its parts, and a full description."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.birds.anatomy import build_bird
from attention_atlas.synthetic.birds.backdrop import BACKDROPS, ground
from attention_atlas.synthetic.birds.bird import IDS, PARTS, Bird, sample_bird
from attention_atlas.synthetic.birds.palette import color_of
from attention_atlas.synthetic.mesh import Part, bounds, moved
from attention_atlas.synthetic.render import Light, Rendering, View
from attention_atlas.synthetic.world import Made, RenderedWorld, seen

LEAST_SHARE = 0.001  # minimum fraction of the image's pixels of a visible part
MAIN_SHARE = 0.6  # minimum fraction of the plumage in the bird's main colour
PLUMAGE = ("back", "breast", "belly", "throat", "head", "crown", "wing", "tail")
DISTANCE, ANGLE = 6.0, 2 * np.degrees(np.arctan(0.5 / 6.0))  # a distant camera whose image is one unit wide
FLOAT = {"duck": 0.62}  # depth in water as a fraction of the girth


class Birds(RenderedWorld):
    """`image_size` in pixels (square); birds with fewer than `least_parts` visible parts are redrawn."""

    def __init__(self, image_size: int = 64, least_parts: int = 8) -> None:
        super().__init__(image_size)
        if not 1 <= least_parts <= len(PARTS):
            raise ConfigError(f"Birds: least_parts: {least_parts} is not between 1 and {len(PARTS)} parts")
        self.least_parts = least_parts
        self.too_few = f"least_parts: no bird with {least_parts} visible parts"

    def describe_self(self) -> dict[str, Any]:
        return {"world": "birds", "image_size": self.image_size, "least_parts": self.least_parts}

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """Image, Scene and description of one bird, deterministic in the seeds."""
        from attention_atlas.synthetic.birds.captions import account

        image, (bird, _), objects = self.draw(split, seeds)
        scene = self.scene(image_id, split, objects, bird.family)
        full = account(objects, bird.family)
        example = Example(image_id, image_id, full.text, full.phrases, full.relations)
        return Made(image.rgb, scene, {"descriptions": [example]})

    def sample(self, rng: np.random.Generator, split: str) -> tuple[Any, View] | None:
        bird = sample_bird(rng)
        view, around = pose(bird)
        return (bird, around), view

    def visible(self, shown: Any, image: Rendering) -> list[SceneObject] | None:
        bird, around = shown
        objects = scene_objects(bird, around, image.ids, image.whole)
        return objects if sum(o.label in PARTS for o in objects) >= self.least_parts else None


def pose(bird: Bird) -> tuple[View, dict[str, tuple[str, list[str]]]]:
    """The bird centred in an image of side 1, with its surroundings.

    Also returns the label and attributes of `backdrop` and, unless the bird flies, of `ground`.
    """
    rng = np.random.default_rng(bird.seed)
    pieces = build_bird(bird)
    low, high = bounds([p for parts in pieces.values() for p in parts])
    scale = bird.share / max(high[0] - low[0], high[2] - low[2])
    middle = (low + high) / 2
    shift = (-float(middle[0]), 0.0, -float(middle[2]))
    pieces = {name: [_scaled(moved(p, shift), scale) for p in parts] for name, parts in pieces.items()}
    solids = [(IDS[name], pieces[name]) for name in PARTS if name in pieces]
    label, attributes, parts = BACKDROPS[bird.backdrop](rng)
    around = {"backdrop": (label, attributes)}
    solids.append((IDS["backdrop"], parts))
    if not bird.flying:
        feet = (-(bird.girth + bird.legs) - float(middle[2])) * scale
        if bird.ground == "water":
            feet = (-FLOAT[bird.family] * bird.girth - float(middle[2])) * scale
        label, attributes, parts = ground(bird.ground, feet, rng)
        around["ground"] = (label, attributes)
        solids.append((IDS["ground"], parts))
    height = 0.0 if bird.ground in ("air", "branch") else float(rng.uniform(0.4, 1.1))
    light = Light(
        (float(rng.uniform(-2, 2)), -4.0, float(rng.uniform(1.5, 4.0))),
        (0.0, 0.0, 0.0),
        strength=float(rng.uniform(0.36, 0.5)),
    )
    view = View(
        solids,
        (0.0, -DISTANCE, height),
        (0.0, 0.0, 0.0),
        float(ANGLE),
        [light],
        float(rng.uniform(0.5, 0.58)),
    )
    return view, around


def _scaled(part: Part, scale: float) -> Part:
    return Part(part.points * scale, part.normals, part.uv, part.triangles, part.material)


def scene_objects(
    bird: Bird, around: dict[str, tuple[str, list[str]]], ids: NDArray[np.int32], whole: dict[int, int]
) -> list[SceneObject]:
    """The bird (id 0: all its parts), its visible parts, the ground and the background, by id.

    `ids` (S, S): part of each pixel; `whole`: number of pixels of each part without occlusion. Omits parts
    below 0.1 % of the image. The bird's colour is that of at least 60 % of its visible feathers, if any;
    its occlusion is unknown and set to 0.
    """
    masks = {name: ids == number for name, number in IDS.items()}
    masks["bird"] = np.isin(ids, [IDS[p] for p in PARTS])
    found = []
    for name, number in IDS.items():
        if masks[name].sum() < LEAST_SHARE * ids.size:
            continue
        label, attributes = around[name] if name in around else (name, bird.words(name))
        if name == "bird":
            attributes = attributes + main_color(bird, masks)
            attributes += ["flying"] if bird.flying else []
        found.append(seen(number, label, attributes, masks[name], 0 if name == "bird" else whole[number]))
    return found


def main_color(bird: Bird, masks: dict[str, NDArray[np.bool_]]) -> list[str]:
    """The main colour of the plumage, [] if none covers enough."""
    areas: dict[str, int] = {}
    for part in PLUMAGE:
        color = color_of([bird.colors[part]])
        areas[color] = areas.get(color, 0) + int(masks[part].sum())
    color = max(sorted(areas), key=lambda c: areas[c])
    return [color] if areas[color] >= MAIN_SHARE * sum(areas.values()) else []
