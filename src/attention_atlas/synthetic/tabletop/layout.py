"""Random sampling of a table with shapes that do not touch, are all visible, and have clear relations."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.mesh import Material, Part, box, moved, panel, turned
from attention_atlas.synthetic.render import Light, View
from attention_atlas.synthetic.rooms.plan import Camera
from attention_atlas.synthetic.rooms.view import TINTS, project
from attention_atlas.synthetic.tabletop.looks import ATTRIBUTES, SIZES, TABLES, WALLS, surface, table_surface
from attention_atlas.synthetic.tabletop.shapes import build
from attention_atlas.synthetic.tabletop.table import Item, Table

GAP = 0.06  # minimum distance between two footprints in metres
LEAST_ASIDE = 0.1  # minimum horizontal distance of two centres in the image (-1..1)
LEAST_DEEPER = 0.16  # minimum distance of two feet along the line of sight in metres
FIELD = ((-1.75, 1.75), (-1.55, 1.9))  # x and y where shapes stand
ALIKE = (
    0.45  # chance that a shape shares two attributes with an earlier one, so that there is something to count
)
TRIES, STARTS = 120, 60
TABLE_ID, WALL_ID = 1000, 1001  # in the id image; shapes count from 0


@dataclass(frozen=True)
class Laid:
    table: Table
    camera: Camera
    centers: list[tuple[float, float, float]]  # of the shapes, metres
    view: View


@dataclass(frozen=True)
class _Place:
    x: float
    y: float
    radius: float
    side: float
    height: float
    depth: float
    seen: float  # radius in the image


def lay_table(rng: np.random.Generator, least: int = 3, most: int = 8) -> Laid:
    """`least` to `most` shapes on a table. The same generator state gives the same table."""
    for _ in range(STARTS):
        camera = _camera(rng)
        looks = _looks(int(rng.integers(least, most + 1)), rng)
        places = _places([SIZES[look["size"]] for look in looks], camera, rng)
        if places is not None:
            return _laid(looks, places, camera, rng)
    raise ConfigError(f"Tabletop: most_objects: {most} shapes do not fit on the table; use a lower value")


def _camera(rng: np.random.Generator) -> Camera:
    """Far away with a narrow angle, so that a near small shape does not look like a distant large one."""
    eye = (float(rng.uniform(-1.8, 1.8)), float(rng.uniform(-6.8, -6.1)), float(rng.uniform(4.2, 5.6)))
    aim = (float(rng.uniform(-0.1, 0.1)), float(rng.uniform(0.0, 0.2)), 0.2)
    return Camera(eye, aim, float(rng.uniform(27, 30)))


def _looks(number: int, rng: np.random.Generator) -> list[dict[str, str]]:
    """Attributes of each shape; no two shapes agree in all four."""
    looks: list[dict[str, str]] = []
    while len(looks) < number:
        look = {kind: str(rng.choice(words)) for kind, words in ATTRIBUTES.items()}
        if looks and rng.random() < ALIKE:
            like = looks[int(rng.integers(len(looks)))]
            for kind in rng.choice(list(ATTRIBUTES), size=2, replace=False):
                look[str(kind)] = like[str(kind)]
        if look not in looks:
            looks.append(look)
    return looks


def _places(radii: list[float], camera: Camera, rng: np.random.Generator) -> list[_Place] | None:
    places: list[_Place] = []
    for radius in radii:
        for place in _candidates(radius, camera, rng):
            if abs(place.side) + place.seen < 0.97 and all(_clear(place, other) for other in places):
                places.append(place)
                break
        else:
            return None
    return places


def _candidates(radius: float, camera: Camera, rng: np.random.Generator) -> Iterator[_Place]:
    x, y = (rng.uniform(*ends, size=TRIES) for ends in FIELD)
    middle = project(camera, np.stack([x, y, np.full(TRIES, 0.75 * radius)], axis=1))
    foot = project(camera, np.stack([x, y, np.zeros(TRIES)], axis=1))
    seen = radius / middle[:, 2] / np.tan(np.radians(camera.angle / 2))
    for row in np.stack([x, y, np.full(TRIES, radius), *middle[:, :2].T, foot[:, 2], seen], axis=1).tolist():
        yield _Place(*row)


def _clear(a: _Place, b: _Place) -> bool:
    if math.hypot(a.x - b.x, a.y - b.y) < a.radius + b.radius + GAP:
        return False
    if abs(a.side - b.side) < LEAST_ASIDE or abs(a.depth - b.depth) < LEAST_DEEPER:
        return False
    nearer = a if a.depth < b.depth else b  # must not hide the middle of the other
    return math.hypot(a.side - b.side, a.height - b.height) > 0.95 * nearer.seen


def _laid(
    looks: list[dict[str, str]], places: list[_Place], camera: Camera, rng: np.random.Generator
) -> Laid:
    kind = str(rng.choice(list(TABLES)))
    solids: list[tuple[int, list[Part]]] = [
        (TABLE_ID, [box((9.0, 6.2, 0.2), (0, 0.1, -0.1), table_surface(kind, rng))]),
        (WALL_ID, [panel(11.0, 4.0, (0, 3.2, 2.0), Material(color=WALLS[int(rng.integers(len(WALLS)))]))]),
    ]
    items, centers = [], []
    for number, (look, place) in enumerate(zip(looks, places, strict=True)):
        material = surface(look["color"], look["material"], rng)
        degrees = float(rng.uniform(0, 90))
        parts = [turned(p, degrees) for p in build(look["shape"], place.radius, material)]
        solids.append((number, [moved(p, (place.x, place.y, 0.0)) for p in parts]))
        items.append(Item(number, **look, side=round(place.side, 4), depth=round(place.depth, 4)))
        points: NDArray[np.float64] = np.vstack([p.points for p in parts])
        height = float(points[:, 2].max()) / 2
        centers.append((round(place.x, 4), round(place.y, 4), round(height, 4)))
    position = (float(rng.uniform(-4, 4)), float(rng.uniform(-4, 0)), float(rng.uniform(4.0, 6.5)))
    light = Light(position, (0.0, 0.3, 0.0), TINTS[int(rng.integers(3))], float(rng.uniform(0.42, 0.62)))
    view = View(solids, camera.eye, camera.target, camera.angle, [light], float(rng.uniform(0.34, 0.44)))
    return Laid(Table(kind, tuple(items)), camera, centers, view)
