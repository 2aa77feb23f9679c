"""What a world is to the build driver. A later world is one new class with these methods and one YAML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from attention_atlas.data.corpus import Example, Scene


@dataclass
class Made:
    """One rendered scene with its texts and what later annotation layers need of it."""

    rgb: NDArray[np.uint8]  # (S, S, 3)
    scene: Scene
    layers: dict[str, list[Example]] = field(default_factory=dict)  # text layer -> its examples
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)  # file stem -> one row of <stem>.jsonl


class World(Protocol):
    """A world makes scene `index` of a split from the seeds alone, so that any worker can make it."""

    def make(self, image_id: str, split: str, seeds: list[int]) -> Made:
        """`seeds` are entropy for np.random.SeedSequence, different for every scene."""
        ...

    def describe_self(self) -> dict[str, Any]:
        """The settings that decide what it makes (JSON values); part of the stamp of unfinished work."""
        ...
