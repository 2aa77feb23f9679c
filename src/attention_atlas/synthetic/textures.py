"""Procedural textures: each pattern is a function Material -> uint8 image (S, S, 3), deterministic in the
seed.

Row 0 of an image is its upper edge. To add a pattern, write a function with the decorator `@pattern`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from attention_atlas.errors import AtlasError, did_you_mean
from attention_atlas.synthetic.mesh import Material

Image = NDArray[np.uint8]
SIDE = 64
PATTERNS: dict[str, Callable[[Material], NDArray[np.float64]]] = {}


def pattern(function: Callable[[Material], NDArray[np.float64]]) -> Callable[[Material], NDArray[np.float64]]:
    PATTERNS[function.__name__] = function
    return function


@lru_cache(maxsize=512)
def texture(material: Material) -> Image:
    """The tile of a material. Raises AtlasError for an unknown pattern."""
    if material.pattern not in PATTERNS:
        raise AtlasError(
            f"material: pattern: '{material.pattern}' is unknown{did_you_mean(material.pattern, PATTERNS)}"
        )
    return (np.clip(PATTERNS[material.pattern](material), 0, 1) * 255).round().astype(np.uint8)


def _grid(side: int = SIDE) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Row and column of each pixel, 0..1."""
    step = (np.arange(side) + 0.5) / side
    row, column = np.meshgrid(step, step, indexing="ij")
    return row, column


def _mix(mask: NDArray[np.bool_] | NDArray[np.float64], m: Material) -> NDArray[np.float64]:
    weight = np.asarray(mask, dtype=float)[..., None]
    return weight * np.array(m.color) + (1 - weight) * np.array(m.second)


def _smooth_noise(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """Tileable noise in 0..1 from `rows` × `columns` lattice points, (SIDE, SIDE)."""
    lattice = rng.random((rows, columns))
    lattice = np.pad(lattice, ((0, 1), (0, 1)), mode="wrap")
    r, c = np.arange(SIDE) * rows / SIDE, np.arange(SIDE) * columns / SIDE
    i, j = r.astype(int), c.astype(int)
    fr, fc = (r - i)[:, None], (c - j)[None, :]
    a, b = lattice[i][:, j], lattice[i][:, j + 1]
    d, e = lattice[i + 1][:, j], lattice[i + 1][:, j + 1]
    return (a * (1 - fc) + b * fc) * (1 - fr) + (d * (1 - fc) + e * fc) * fr


@pattern
def striped(m: Material) -> NDArray[np.float64]:
    _, column = _grid()
    return _mix((column * 4).astype(int) % 2 == 0, m)


@pattern
def checkered(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    return _mix(((column * 2).astype(int) + (row * 2).astype(int)) % 2 == 0, m)


@pattern
def dotted(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    away = np.hypot((row * 2) % 1 - 0.5, (column * 2) % 1 - 0.5)
    return _mix(away > 0.27, m)


@pattern
def floral(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    image = _mix(np.ones_like(row), m)
    for middle_row, middle_column in ((0.27, 0.27), (0.77, 0.73)):
        dy, dx = row - middle_row, column - middle_column
        away, angle = np.hypot(dy, dx), np.arctan2(dy, dx)
        image[away < 0.15 + 0.07 * np.cos(5 * angle)] = m.second
        image[away < 0.06] = (0.95, 0.8, 0.25)
    return image


@pattern
def tiled(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    joint = (row % 0.5 < 0.035) | (column % 0.5 < 0.035)
    return _mix(~joint, m)


@pattern
def brick(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    line = (row * 4).astype(int)
    shifted = (column + 0.25 * (line % 2)) % 1
    joint = (row % 0.25 < 0.045) | (shifted % 0.5 < 0.03)
    tone = 1 - 0.12 * ((line * 3 + (shifted * 2).astype(int) * 2) % 4 == 0)
    return _mix(~joint, m) * tone[..., None]


@pattern
def wood(m: Material) -> NDArray[np.float64]:
    rng = np.random.default_rng(m.seed)
    grain = 0.6 * _smooth_noise(rng, 3, 24) + 0.4 * _smooth_noise(rng, 8, 32)
    return np.array(m.color) * (0.78 + 0.4 * grain)[..., None]


@pattern
def planks(m: Material) -> NDArray[np.float64]:
    rng = np.random.default_rng(m.seed)
    _, column = _grid()
    board = (column * 4).astype(int)
    tone = 0.86 + 0.24 * rng.random(4)[board] + 0.12 * (_smooth_noise(rng, 4, 32) - 0.5)
    tone = np.where(column % 0.25 < 0.02, 0.55, tone)
    return np.array(m.color) * tone[..., None]


@pattern
def metal(m: Material) -> NDArray[np.float64]:
    """Polished metal: slanted bright bands."""
    row, column = _grid()
    band = np.sin(np.pi * (column + row)) ** 2
    gray = np.mean(m.color)
    color = 0.75 * np.array(m.color) + 0.25 * gray
    return color * (0.8 + 0.2 * band)[..., None] + 0.25 * (band**8)[..., None]


@pattern
def leather(m: Material) -> NDArray[np.float64]:
    """Tufted leather: seams in a diamond grid, with buttons at the crossings."""
    row, column = _grid()
    up, down = (column + row) * 2 % 1, (column - row) * 2 % 1
    seam = np.minimum(np.minimum(up, 1 - up), np.minimum(down, 1 - down))
    tone = 0.7 + 0.35 * np.clip(seam / 0.2, 0, 1)
    button = np.hypot(np.minimum(up, 1 - up), np.minimum(down, 1 - down)) < 0.12
    return np.array(m.color) * np.where(button, 0.4, tone)[..., None]


@pattern
def wicker(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    over = ((row * 6).astype(int) + (column * 6).astype(int)) % 2 == 0
    strand = np.where(over, np.sin(np.pi * (row * 6 % 1)), np.sin(np.pi * (column * 6 % 1)))
    return np.array(m.color) * (0.5 + 0.55 * strand)[..., None]


@pattern
def carpet(m: Material) -> NDArray[np.float64]:
    rng = np.random.default_rng(m.seed)
    return np.array(m.color) * (0.85 + 0.3 * rng.random((SIDE, SIDE)))[..., None]


@pattern
def bordered(m: Material) -> NDArray[np.float64]:
    """A field with a frame of the second colour (rugs); for stretched faces."""
    row, column = _grid()
    edge = np.minimum(np.minimum(row, 1 - row), np.minimum(column, 1 - column))
    return _mix(~((edge > 0.06) & (edge < 0.14)), m)


@pattern
def sky(m: Material) -> NDArray[np.float64]:
    """The view through a window: sky above, trees below."""
    rng = np.random.default_rng(m.seed)
    row, _ = _grid()
    image = np.array([0.45, 0.68, 0.95]) * (1 - row[..., None]) + np.array([0.9, 0.95, 1.0]) * row[..., None]
    skyline = 0.68 + 0.1 * (_smooth_noise(rng, 1, 6)[0] - 0.5)
    image[row > skyline[None, :]] = (0.42, 0.62, 0.36)
    return image


@pattern
def mirror(m: Material) -> NDArray[np.float64]:
    row, column = _grid()
    glow = 0.72 + 0.2 * (1 - row)
    glow = np.where(np.abs(column + row - 0.75) < 0.06, 1.0, glow)
    glow = np.where(np.abs(column + row - 0.95) < 0.03, 0.97, glow)
    return glow[..., None] * np.array([0.82, 0.92, 1.0])


@pattern
def painting(m: Material) -> NDArray[np.float64]:
    """A landscape, flowers, a portrait or blocks of colour, by seed."""
    rng = np.random.default_rng(m.seed)
    row, column = _grid()
    motif = m.seed % 4
    if motif == 0:  # landscape
        image = np.array([0.55, 0.75, 0.95]) + 0.25 * row[..., None]
        for level, tint in ((0.45, (0.45, 0.5, 0.6)), (0.62, (0.35, 0.6, 0.3)), (0.8, (0.75, 0.7, 0.35))):
            hill = level + 0.25 * (_smooth_noise(rng, 1, 4)[0] - 0.5)
            image[row > hill[None, :]] = tint
        image[np.hypot(row - 0.2, column - rng.uniform(0.2, 0.8)) < 0.08] = (1.0, 0.9, 0.4)
    elif motif == 1:  # flowers
        image = np.broadcast_to(np.array([0.95, 0.93, 0.85]), (SIDE, SIDE, 3)).copy()
        for x in rng.permutation([0.25, 0.5, 0.75]):
            y = rng.uniform(0.25, 0.5)
            image[(np.abs(column - x) < 0.02) & (row > y)] = (0.2, 0.5, 0.2)
            petal = rng.permutation([0.9, 0.3, 0.35])
            image[np.hypot(row - y, column - x) < 0.14] = petal
            image[np.hypot(row - y, column - x) < 0.05] = (1.0, 0.85, 0.2)
    elif motif == 2:  # portrait
        image = np.broadcast_to(np.array([0.35, 0.4, 0.42]), (SIDE, SIDE, 3)).copy()
        image[np.hypot((row - 1.0) / 0.9, (column - 0.5) / 0.8) < 0.45] = rng.random(3) * 0.7
        image[np.hypot((row - 0.36) / 1.3, column - 0.5) < 0.2] = (0.25, 0.16, 0.1)
        image[np.hypot((row - 0.42) / 1.25, column - 0.5) < 0.16] = (0.9, 0.74, 0.62)
    else:  # blocks of colour
        image = np.broadcast_to(np.array([0.96, 0.95, 0.92]), (SIDE, SIDE, 3)).copy()
        for _ in range(5):
            top, left = rng.uniform(0, 0.7, 2)
            tall, wide = rng.uniform(0.15, 0.5, 2)
            inside = (row > top) & (row < top + tall) & (column > left) & (column < left + wide)
            image[inside] = rng.permutation([0.9, 0.5, 0.15])
    return image


@pattern
def spines(m: Material) -> NDArray[np.float64]:
    """Books side by side."""
    rng = np.random.default_rng(m.seed)
    image = np.zeros((SIDE, SIDE, 3))
    left = 0
    while left < SIDE:
        wide = int(rng.integers(8, 13))
        color = np.array(
            [
                (0.75, 0.2, 0.2),
                (0.2, 0.4, 0.7),
                (0.25, 0.55, 0.3),
                (0.85, 0.7, 0.3),
                (0.9, 0.88, 0.8),
                (0.45, 0.25, 0.5),
            ][int(rng.integers(6))]
        )
        image[:, left : left + wide] = color
        image[12:16, left : left + wide] = color * 0.5
        image[:, left : left + 1] = 0.1
        left += wide
    return image


@pattern
def face(m: Material) -> NDArray[np.float64]:
    """A clock face, the hour by seed."""
    row, column = _grid()
    y, x = 0.5 - row, column - 0.5
    away, angle = np.hypot(x, y), np.arctan2(x, y)
    image = np.broadcast_to(np.array(m.second), (SIDE, SIDE, 3)).copy()
    marks = (away > 0.36) & (away < 0.44) & (np.abs((angle / (np.pi / 6) + 0.5) % 1 - 0.5) < 0.16)
    image[marks] = m.color
    hour = (m.seed % 12) * np.pi / 6
    for direction, reach, thick in ((hour, 0.24, 0.035), (hour * 5.0, 0.36, 0.025)):
        along = x * np.sin(direction) + y * np.cos(direction)
        across = np.abs(x * np.cos(direction) - y * np.sin(direction))
        image[(along > -0.02) & (along < reach) & (across < thick)] = m.color
    return image


@pattern
def sign(m: Material) -> NDArray[np.float64]:
    """Words in the second colour on a board twice as wide as high (stretched faces only)."""
    from PIL import Image as PILImage
    from PIL import ImageDraw, ImageFont

    wide, high = 256, 128
    mask = PILImage.new("L", (wide, high), 0)
    draw = ImageDraw.Draw(mask)
    lines = m.words.split("\n")
    size = 110.0
    while size > 12:
        font = ImageFont.load_default(size)
        if (
            draw.multiline_textbbox((0, 0), m.words, font=font, spacing=2)[2] < wide - 24
            and size * len(lines) < 118
        ):
            break
        size -= 4
    draw.multiline_text(
        (wide / 2, high / 2),
        m.words,
        fill=255,
        font=font,
        anchor="mm",
        align="center",
        spacing=2,
        stroke_width=3,
    )
    ink = np.asarray(mask, dtype=float) / 255
    image = _mix(1 - ink, m)
    edge = 6
    image[:edge], image[-edge:], image[:, :edge], image[:, -edge:] = m.second, m.second, m.second, m.second
    return image
