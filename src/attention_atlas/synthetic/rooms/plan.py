"""The plan of a furnished room: objects and positions, in metres.

Axes: x to the right, y away from the viewer, z up; the floor is z = 0. Directions in texts (left of, in front
of) are the viewer's, so they are computed from the camera, not from these axes.
"""

from __future__ import annotations

from dataclasses import dataclass, field

Vector = tuple[float, float, float]
WALLS = ("back", "left", "right")


@dataclass(frozen=True)
class Placed:
    """One object of a room. `id` is the SceneObject id of the corpus and the number in the id image."""

    id: int
    label: str  # a name in kinds.KINDS, or wall, floor, ceiling
    center: Vector  # of its axis-aligned bounds
    size: Vector  # extent of its axis-aligned bounds
    turn: float = 0.0  # degrees about z
    color: str = ""  # a word that is visibly true of it, "" when none fits
    material: str = ""  # wooden, metal, leather, wicker, tiled, ... or ""
    pattern: str = ""  # striped, checkered, dotted, floral, ... or "" when plain
    size_word: str = ""  # small, large, tall, ... or "" when ordinary
    shape: str = ""  # round, or ""
    support: str = "floor"  # floor | wall | ceiling | on | in: what holds it
    parent: int = -1  # id of the object on or in which it is, -1 for the room
    wall: str = ""  # the wall on or against which it is, "" if free-standing
    text: str = ""  # words written on it

    @property
    def attributes(self) -> list[str]:
        """Its attribute words, in the order English puts them before a noun."""
        words = (self.size_word, self.shape, self.color, self.pattern, self.material)
        return [word for word in words if word]


@dataclass(frozen=True)
class Camera:
    eye: Vector
    target: Vector
    angle: float  # vertical field of view in degrees


@dataclass(frozen=True)
class Plan:
    """A room of one category (kitchen, ...) with its shell (walls, floor, ceiling) among `objects`."""

    category: str
    size: Vector  # width (x), depth (y), height (z)
    camera: Camera
    objects: list[Placed] = field(default_factory=list)

    def object(self, object_id: int) -> Placed:
        return next(o for o in self.objects if o.id == object_id)
