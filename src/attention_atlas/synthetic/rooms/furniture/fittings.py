"""Objects on walls and ceilings."""

from __future__ import annotations

from dataclasses import replace

from attention_atlas.synthetic.mesh import Material, Part, box, cylinder, ellipsoid, panel
from attention_atlas.synthetic.rooms.kinds import DARK, METAL, Look, Size, kind, shade

GLOW = Material(color=(1.0, 0.95, 0.75), glow=0.5)


@kind("window")
def window(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [panel(w, h, (0, 0, h / 2), Material(pattern="sky", scale=0, seed=look.seed))]
    parts += [box((0.07, d, h), (x, 0, h / 2), m) for x in (-w / 2 + 0.035, w / 2 - 0.035)]
    parts += [box((w, d, 0.07), (0, 0, z), m) for z in (0.035, h - 0.035)]
    parts += [box((0.05, d, h), (0, 0, h / 2), m)]
    if look.variant:
        parts += [box((w, d, 0.05), (0, 0, h / 2), m)]
    return parts


@kind("door")
def door(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    frame = shade(m, 0.55)
    parts = [box((w - 0.14, d * 0.5, h - 0.06), (0, d * 0.2, (h - 0.06) / 2), m)]
    parts += [box((0.08, d, h), (x, 0, h / 2), frame) for x in (-w / 2 + 0.04, w / 2 - 0.04)]
    parts += [box((w, d, 0.08), (0, 0, h - 0.04), frame)]
    parts += [box((w * 0.5, 0.02, h * 0.32), (0, -d * 0.05, z), shade(m, 1.25)) for z in (h * 0.27, h * 0.7)]
    return [*parts, ellipsoid((0.08, 0.08, 0.08), (w / 2 - 0.17, -d * 0.3, h * 0.48), METAL)]


@kind("curtains")
def curtains(size: Size, look: Look) -> list[Part]:
    """Two panels at the sides of a window, under a rod."""
    w, d, h = size
    wide = w * 0.2
    parts: list[Part] = [cylinder(0.02, w + 0.1, (0, 0, h - 0.02), DARK, axis="x", sides=8)]
    for side in (-1, 1):
        for i in range(4):
            x = side * (w / 2 - wide * (i + 0.5) / 4)
            parts.append(
                box((wide / 4, d * (0.5 + 0.4 * (i % 2)), h - 0.04), (x, 0, h / 2 - 0.02), look.main)
            )
    return parts


@kind("painting")
def painting(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    return [
        box((w, d, h), (0, 0, h / 2), look.main),
        panel(
            w - 0.12,
            h - 0.12,
            (0, -d / 2 - 0.005, h / 2),
            Material(pattern="painting", scale=0, seed=look.seed),
        ),
    ]


@kind("sign")
def sign(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    ink = (0.08, 0.08, 0.1) if sum(m.color) > 1.5 else (0.97, 0.97, 0.95)
    board = replace(m, pattern="sign", scale=0.0, words=look.words, second=ink)
    return [box((w, d, h), (0, 0, h / 2), m), panel(w, h, (0, -d / 2 - 0.005, h / 2), board)]


@kind("mirror")
def mirror(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    glass = Material(pattern="mirror", scale=0, shine=0.3)
    return [
        box((w, d, h), (0, 0, h / 2), look.main),
        panel(w - 0.1, h - 0.1, (0, -d / 2 - 0.005, h / 2), glass),
    ]


@kind("clock")
def clock(size: Size, look: Look) -> list[Part]:
    w, d, _ = size
    front = Material(
        pattern="face", scale=0, color=(0.05, 0.05, 0.05), second=(0.97, 0.97, 0.95), seed=look.seed
    )
    return [
        cylinder(w / 2, d, (0, 0, w / 2), look.main, axis="y", sides=24),
        cylinder(w / 2 - 0.04, 0.02, (0, -d / 2, w / 2), front, axis="y", sides=24),
    ]


@kind("shelf")
def shelf(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    brackets = [
        box((0.04, d * 0.8, h - 0.05), (sx * w * 0.35, d * 0.1, (h - 0.05) / 2), DARK) for sx in (-1, 1)
    ]
    return [box((w, d, 0.05), (0, 0, h - 0.025), look.main), *brackets]


@kind("towel")
def towel(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    return [
        cylinder(0.02, w + 0.14, (0, 0, h - 0.02), METAL, axis="x", sides=8),
        box((w, d * 0.7, h - 0.03), (0, 0, h / 2 - 0.015), look.main),
    ]


@kind("ceiling lamp")
def ceiling_lamp(size: Size, look: Look) -> list[Part]:
    """Hangs from its cord: the upper end of the cord is at the full height."""
    w, _, h = size
    if look.variant:
        return [
            box((0.025, 0.025, h - 0.3), (0, 0, 0.3 + (h - 0.3) / 2), DARK),
            ellipsoid((w * 0.8, w * 0.8, 0.4), (0, 0, 0.2), look.main),
        ]
    return [
        box((0.025, 0.025, h - 0.25), (0, 0, 0.25 + (h - 0.25) / 2), DARK),
        cylinder(w / 2, 0.25, (0, 0, 0.155), look.main, top=w * 0.18, sides=20),
        ellipsoid((w * 0.5, w * 0.5, 0.14), (0, 0, 0.07), GLOW),
    ]


@kind("chandelier")
def chandelier(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    m = look.main
    import math

    parts = [box((0.03, 0.03, h), (0, 0, h / 2), m), ellipsoid((0.16, 0.16, 0.16), (0, 0, 0.08), m)]
    for i in range(6):
        x, y = math.cos(math.pi * i / 3) * w * 0.42, math.sin(math.pi * i / 3) * w * 0.42
        parts.append(cylinder(0.055, 0.14, (x, y, 0.2), GLOW, sides=8))
        parts.append(cylinder(0.07, 0.03, (x, y, 0.11), m, sides=8))
        parts.append(box((abs(x) + 0.03, abs(y) + 0.03, 0.03), (x / 2, y / 2, 0.09), m))
    return parts
