"""Furnishing a room: the placed objects, and whether another one fits."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from attention_atlas.synthetic.mesh import Part, bounds, moved, turned
from attention_atlas.synthetic.rooms.categories import Category
from attention_atlas.synthetic.rooms.kinds import KINDS, Kind
from attention_atlas.synthetic.rooms.looks import Chosen, choose
from attention_atlas.synthetic.rooms.plan import Camera, Placed, Vector
from attention_atlas.synthetic.rooms.view import project

Bounds = tuple[NDArray[np.float64], NDArray[np.float64]]
GAP = 0.03  # minimum distance between objects in metres


@dataclass
class Thing:
    """A placed object with its geometry."""

    placed: Placed
    kind: Kind
    chosen: Chosen
    parts: list[Part]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def middle(self) -> NDArray[np.float64]:
        return (self.low + self.high) / 2


@dataclass
class Shape:
    """A rotated object before placement: parts around the origin and their bounds."""

    kind: Kind
    chosen: Chosen
    turn: float
    parts: list[Part]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass
class Layout:
    category: Category
    size: Vector
    camera: Camera
    rng: np.random.Generator
    first_id: int
    things: list[Thing] = field(default_factory=list)
    kept_free: list[Bounds] = field(default_factory=list)  # before doors
    _built: tuple[Chosen | None, list[Part]] = (None, [])

    def of_kind(self, label: str) -> list[Thing]:
        return [t for t in self.things if t.kind.label == label]

    def choose(self, label: str) -> Chosen:
        words = str(self.rng.choice(self.category.signs)) if label == "sign" else ""
        return choose(KINDS[label], self.rng, words)

    def shape(self, label: str, chosen: Chosen, turn: float = 0.0) -> Shape:
        kind = KINDS[label]
        if self._built[0] is not chosen:  # the same object is tried at several places
            self._built = (chosen, kind.build(chosen.size, chosen.look))
        parts = [turned(p, turn) for p in self._built[1]] if turn else self._built[1]
        return Shape(kind, chosen, turn, parts, *bounds(parts))

    def fits(
        self, label: str, low: NDArray[np.float64], high: NDArray[np.float64], ignored: tuple[int, ...] = ()
    ) -> bool:
        """Whether it is within the room, in the image, and free of overlap, except with ignored objects."""
        width, depth, height = self.size
        inside = (
            low[0] >= -width / 2 and high[0] <= width / 2 and high[1] <= depth and high[2] <= height + 1e-6
        )
        if not inside or low[1] < 0.35 or low[2] < -0.02:
            return False
        corner_low, corner_high = low + GAP / 2, high - GAP / 2
        flat = high[2] < 0.05  # rugs may be below other objects
        if not flat:
            for free_low, free_high in self.kept_free:
                if np.all(corner_low < free_high) and np.all(corner_high > free_low):
                    return False
        for thing in self.things:
            if thing.placed.id in ignored or (thing.kind.label == "rug") != flat:
                continue
            if np.all(corner_low < thing.high + GAP / 2) and np.all(corner_high > thing.low - GAP / 2):
                return False
        return self._in_image(label, low, high)

    def _in_image(self, label: str, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
        """Whether the centre is visible; for a sign every corner, so that its words can be read."""
        points = ((low + high) / 2)[None]
        if label == "sign":
            points = np.array(
                [[x, y, z] for x in (low[0], high[0]) for y in (low[1], high[1]) for z in (low[2], high[2])]
            )
        x, y, away = project(self.camera, points).T
        near = 1.5 if high[2] > 0.6 else 1.0  # nothing tall directly in front of the viewer
        return bool(np.all(away > near) and np.all(np.abs(x) < 0.95) and np.all(np.abs(y) < 0.95))

    def put(
        self,
        shape: Shape,
        at: tuple[float, float, float],
        support: str = "floor",
        parent: int = -1,
        wall: str = "",
        ignored: tuple[int, ...] = (),
    ) -> Thing | None:
        """Place a shape with the middle of its footprint at x, y and its lowest point at z; None if it
        does not fit. The parent is ignored in the test.
        """
        offset = np.array(at) - np.array([*(shape.low[:2] + shape.high[:2]) / 2, shape.low[2]])
        low, high = shape.low + offset, shape.high + offset
        if not self.fits(shape.kind.label, low, high, (*ignored, parent)):
            return None
        middle, extent, chosen = (low + high) / 2, high - low, shape.chosen
        placed = Placed(
            id=self.first_id + len(self.things),
            label=shape.kind.label,
            center=_vector(middle),
            size=_vector(extent),
            turn=round(float(shape.turn), 3),
            color=chosen.color,
            material=chosen.material,
            pattern=chosen.pattern,
            size_word=chosen.size_word,
            shape=chosen.shape,
            support=support,
            parent=parent,
            wall=wall,
            text=chosen.look.words.replace("\n", " "),
        )
        parts = [moved(p, _vector(offset, 9)) for p in shape.parts]
        thing = Thing(placed, shape.kind, chosen, parts, low, high)
        self.things.append(thing)
        return thing

    def settle(self) -> None:
        """Make the rug the parent of objects completely on it."""
        for rug in self.of_kind("rug"):
            for thing in self.things:
                if thing.placed.support != "floor" or thing is rug:
                    continue
                edge = 0.05
                if np.all(thing.low[:2] > rug.low[:2] - edge) and np.all(
                    thing.high[:2] < rug.high[:2] + edge
                ):
                    thing.placed = replace(thing.placed, support="on", parent=rug.placed.id)


def _vector(values: NDArray[np.float64], digits: int = 4) -> Vector:
    x, y, z = (round(float(v), digits) for v in values)
    return (x, y, z)
