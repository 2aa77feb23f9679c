"""From a `Bird` to the triangles of its parts.

The bird is modelled facing +x, with z up and the centre of its body at the origin, and then rotated. Body and
neck are one surface, the head another; the parts of the plumage are regions of these surfaces, so that
neighbours meet without gap or overlap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from attention_atlas.synthetic.birds.bird import Bird
from attention_atlas.synthetic.birds.families import FAMILIES
from attention_atlas.synthetic.birds.loft import cut, facing, loft
from attention_atlas.synthetic.birds.palette import COLORS
from attention_atlas.synthetic.mesh import Array, Material, Part, cylinder, ellipsoid, moved, turned

Pieces = dict[str, list[Part]]
Mask = NDArray[np.bool_]  # of triangles


def build_bird(bird: Bird) -> Pieces:
    """{part: triangles}, in body lengths; without legs if the bird flies."""
    frame = Frame(bird)
    pieces = body(bird, frame)
    for name, more in head(bird, frame).items():
        pieces.setdefault(name, []).extend(more)
    pieces["wing"] = flying_wings(bird, frame) if bird.flying else folded_wings(bird, frame)
    pieces["tail"] = tail(bird, frame)
    if not bird.flying:
        pieces["legs"] = legs(bird, frame)
    turn = bird.yaw + (180 if bird.side < 0 else 0)
    return {name: [turned(p, turn, "z") for p in parts] for name, parts in pieces.items()}


class Frame:
    """The points shared by the parts, (x, z)."""

    def __init__(self, bird: Bird) -> None:
        pitch, angle = np.radians(bird.pitch), np.radians(bird.neck_angle)
        self.axis = np.array([np.cos(pitch), np.sin(pitch)])
        self.up = np.array([-self.axis[1], self.axis[0]])
        self.rump, self.shoulder = -0.5 * self.axis, 0.36 * self.axis
        self.neck = np.array([np.cos(angle), np.sin(angle)])
        self.head = self.shoulder + self.neck * (bird.neck + 0.6 * bird.head)
        self.feet = -(bird.girth + bird.legs)


def feathers(bird: Bird, part: str) -> Material:
    return Material(COLORS[bird.colors[part]], shine=0.05)


def body(bird: Bird, frame: Frame) -> Pieces:
    """Back, breast, belly and throat: regions of one tube from the rump over the shoulder into the head."""
    g, thin = bird.girth, min(0.75 * bird.head, 0.62 * bird.girth)
    middle = (frame.shoulder + frame.head) / 2
    spine = np.stack([frame.rump, -0.1 * frame.axis, frame.shoulder, middle, frame.head])
    wide = np.array([0.07, 0.86 * g, 0.72 * g, thin, 0.8 * bird.head])
    high = np.array([0.09, g, 0.86 * g, 1.05 * thin, 0.8 * bird.head])
    tube, where, side = loft(spine, wide, high, feathers(bird, "back"), rings=32, sides=28)
    throat = (where >= 2.55) & (side < 0.5)
    breast = (where >= 1.4) & (where < 2.55) & (side < 0.3)
    belly = (where < 1.4) & (side < -0.05)
    nape = (where >= 2.9) & ~throat
    back = ~(throat | breast | belly | nape)
    pieces = {
        "back": [cut(tube, back)],
        "belly": [cut(tube, belly, feathers(bird, "belly"))],
        "throat": [cut(tube, throat, feathers(bird, "throat"))],
        "head": [cut(tube, nape, feathers(bird, "head"))],
    }
    across = np.floor(where * 7).astype(int) % 2 == 1
    rays = np.floor((np.arccos(np.clip(side, -1, 1)) / np.pi) * 12).astype(int) % 2 == 1
    pieces["breast"] = marked(bird, "breast", tube, breast, {"striped": across, "spotted": across & rays})
    return pieces


def marked(bird: Bird, part: str, surface: Part, region: Mask, marks: dict[str, Mask]) -> list[Part]:
    """A region in the part's colour, with its pattern's triangles in the second colour."""
    plain = feathers(bird, part)
    if part not in bird.patterns:
        return [cut(surface, region, plain)]
    pattern, second = bird.patterns[part]
    mark = region & marks[pattern]
    return [cut(surface, region & ~mark, plain), cut(surface, mark, Material(COLORS[second], shine=0.05))]


def head(bird: Bird, frame: Frame) -> Pieces:
    """Head, crown, throat, beak and eyes, rotated about the neck."""
    r = bird.head
    ball = ellipsoid((2.15 * r, 1.9 * r, 2 * r), (0, 0, 0), feathers(bird, "head"), sides=28)
    look = facing(ball)
    crown = look @ np.array([-0.25, 0, 0.97]) > 0.45
    throat = (look[:, 2] < -0.22) & (look[:, 0] > -0.4)
    size = bird.beak * r
    root, tip = np.array([0.85 * r, -0.05 * r]), np.array([r + size, -0.12 * r])
    bend = FAMILIES[bird.family].bend
    spine = np.stack([root, (root + tip) / 2, tip - np.array([bend * 0.3 * size, bend * size])])
    flat = 1.25 if bird.family == "duck" else 0.8
    width = bird.beak_width * r * np.array([1.0, 0.72, 0.5 if bird.family == "duck" else 0.05])
    horn = Material(COLORS[bird.colors["beak"]], shine=0.25)
    beak, _, _ = loft(spine, width * flat, width, horn, rings=10, sides=14)
    iris = Material(COLORS[bird.colors["eye"]], shine=0.6)
    at = np.array([0.52, 0.8, 0.28]) * r
    size_eye = (0.4 * r, 0.25 * r, 0.4 * r)
    eyes = [ellipsoid(size_eye, (at[0], s * at[1], at[2]), iris, sides=12) for s in (-1, 1)]
    pieces: Pieces = {
        "head": [cut(ball, ~crown & ~throat)],
        "crown": [cut(ball, crown, feathers(bird, "crown"))],
        "throat": [cut(ball, throat, feathers(bird, "throat"))],
        "beak": [beak],
        "eye": eyes,
    }
    turn = -bird.turn * bird.side  # towards the viewer, whichever way the bird faces
    place = (float(frame.head[0]), 0.0, float(frame.head[1]))
    return {name: [moved(turned(p, turn, "z"), place) for p in parts] for name, parts in pieces.items()}


def wing_surface(bird: Bird, spine: Array, chord: float, thick: float) -> list[Part]:
    """A leaf along `spine` (5, 2), from the shoulder to the tip."""
    high = chord * np.array([0.35, 0.85, 1.0, 0.62, 0.04])
    wide = thick * np.array([0.6, 1.0, 0.9, 0.6, 0.2])
    leaf, where, side = loft(spine, wide, high, feathers(bird, "wing"), rings=31, sides=24)
    rows = np.floor(where * 2.5).astype(int) % 2 == 1
    columns = np.floor((np.arcsin(np.clip(side, -1, 1)) / np.pi + 0.5) * 9).astype(int) % 2 == 1
    bars = ((where > 1.1) & (where < 1.4)) | ((where > 2.0) & (where < 2.3))
    fine = np.floor(where * 4).astype(int) % 2 == 1
    marks = {"barred": bars, "striped": rows, "spotted": fine & columns}
    return marked(bird, "wing", leaf, np.ones(len(where), dtype=bool), marks)


def folded_wings(bird: Bird, frame: Frame) -> list[Part]:
    """One on each side, from the shoulder back and slightly down, the tip above the base of the tail."""
    g = bird.girth
    start = 0.32 * frame.axis + 0.34 * g * frame.up
    end = -0.78 * frame.axis + 0.08 * g * frame.up
    steps = np.array([0.0, 0.22, 0.5, 0.78, 1.0])
    # The spine runs backwards, so the loft's upper edge is the wing's lower edge; the shape is the same.
    spine = start + steps[:, None] * (end - start) + 0.1 * g * np.sin(np.pi * steps)[:, None] * frame.up
    parts = wing_surface(bird, spine, 0.52 * g, 0.14 * g)
    return [moved(turned(p, 4 * s, "z"), (0.0, s * 0.74 * g, 0.0)) for p in parts for s in (-1, 1)]


def flying_wings(bird: Bird, frame: Frame) -> list[Part]:
    """Raised and swept back, one tilted to each side."""
    g = bird.girth
    root = 0.12 * frame.axis + 0.3 * g * frame.up
    steps = np.array([0.0, 0.22, 0.5, 0.78, 1.0])
    spine = np.stack([-0.1 * steps - 0.38 * steps**2, 0.98 * steps - 0.12 * steps**2], axis=1)
    leaf = wing_surface(bird, spine, 0.24, 0.03)
    place = (float(root[0]), 0.0, float(root[1]))
    tilted = [turned(p, 30 * s, "x") for p in leaf for s in (-1, 1)]
    return [moved(p, place) for p in tilted]


def tail(bird: Bird, frame: Frame) -> list[Part]:
    direction = -frame.axis - 0.12 * frame.up
    start, end = -0.4 * frame.axis, -0.42 * frame.axis + bird.tail * direction
    spine = np.stack([start, (start + end) / 2, end])
    high, wide = np.array([0.08, 0.075, 0.085]), np.array([0.09, 0.13, 0.17])
    return [loft(spine, wide, high, feathers(bird, "tail"), rings=8, sides=16)[0]]


def legs(bird: Bird, frame: Frame) -> list[Part]:
    """Two shanks from the belly down, each with a foot that points forward."""
    skin = Material(COLORS[bird.colors["legs"]], shine=0.1)
    top, thick = -0.55 * bird.girth, 0.028
    height = top - frame.feet
    parts = []
    for s, x in ((-1, -0.06), (1, 0.07)):
        y = s * 0.38 * bird.girth
        parts.append(cylinder(thick, height, (x, y, frame.feet + height / 2), skin, sides=8))
        parts.append(ellipsoid((0.2, 0.1, 0.05), (x + 0.05, y, frame.feet + 0.02), skin, sides=8))
    return parts
