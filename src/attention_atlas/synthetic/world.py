"""The interface of worlds. To add a world, write a class with these methods and a YAML file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, Scene


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
