"""The interface of worlds. To add a world, write a class with these methods and a YAML file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, Scene, SceneObject
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.render import Renderer, Rendering, View

REDRAWS = 20


@dataclass
class Made:
    """One rendered scene with its texts and the data for later annotation layers."""

    rgb: NDArray[np.uint8]  # (S, S, 3)
    scene: Scene
    layers: dict[str, list[Example]] = field(default_factory=dict)  # text layer -> its examples
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # file stem -> one row of <stem>.jsonl


class World(Protocol):
    """Creates each scene from its seeds alone, so that any worker can do it."""

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """`seeds` are entropy for np.random.SeedSequence, different for every scene."""
        ...

    def describe_self(self) -> dict[str, Any]:
        """The settings that determine its scenes (JSON values); part of the stamp of unfinished work."""
        ...


class RenderedWorld(ABC):
    """A world whose scenes are sampled again until they show enough. image_size: in pixels (square)."""

    too_few: str  # the setting to change if no scene shows enough, and why

    def __init__(self, image_size: int, least: int = 32) -> None:
        if not least <= image_size <= 1024:
            name = type(self).__name__
            raise ConfigError(f"{name}: image_size: {image_size} is not between {least} and 1024 pixels")
        self.image_size = image_size
        self._renderer: Renderer | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_renderer": None}  # a window belongs to its process

    @abstractmethod
    def sample(self, rng: np.random.Generator, split: str) -> tuple[Any, View] | None:
        """The contents of a scene and their view; None if they are unsuitable."""

    @abstractmethod
    def visible(self, shown: Any, image: Rendering) -> list[SceneObject] | None:
        """The objects of the scene that a person can see; None if there are too few."""

    def draw(self, split: str, seeds: list[int]) -> tuple[Rendering, Any, list[SceneObject]]:
        if self._renderer is None:
            self._renderer = Renderer(self.image_size)
        for attempt in range(REDRAWS):
            rng = np.random.default_rng(np.random.SeedSequence([*seeds, 0, attempt]))
            sampled = self.sample(rng, split)
            if sampled is None:
                continue
            image = self._renderer.draw(sampled[1])
            objects = self.visible(sampled[0], image)
            if objects is not None:
                return image, sampled[0], objects
        raise ConfigError(f"{type(self).__name__}: {self.too_few} in {REDRAWS} draws; use a lower value")

    def scene(self, image_id: str, split: str, objects: list[SceneObject], category: str = "") -> Scene:
        side = self.image_size
        return Scene(image_id, f"images/{image_id}.png", side, side, split, objects, category)


def seen(
    number: int, label: str, attributes: list[str], mask: NDArray[np.bool_], whole: int = 0, text: str = ""
) -> SceneObject:
    """An object by its pixels; `whole`: number of its pixels without occlusion (0: unknown)."""
    rows, columns = np.nonzero(mask)
    x1, y1, x2, y2 = (float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    hidden = 1 - len(rows) / max(whole, len(rows))
    return SceneObject(number, label, attributes, (x1, y1, x2, y2), len(rows), round(float(hidden), 4), text)
