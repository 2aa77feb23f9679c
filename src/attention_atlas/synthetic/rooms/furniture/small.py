"""Lamps, plants, toys and containers that stand on the floor, and rugs."""

from __future__ import annotations

import math

from attention_atlas.synthetic.mesh import Material, Part, box, cylinder, ellipsoid, moved, turned
from attention_atlas.synthetic.rooms.kinds import (
    COLORS,
    DARK,
    EARTH,
    LEAF,
    Look,
    Size,
    kind,
    plain,
    shade,
    stretched,
)


@kind("floor lamp")
def floor_lamp(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w * 0.4, 0.04, (0, 0, 0.02), DARK),
        cylinder(0.025, h - 0.3, (0, 0, h / 2 - 0.1), DARK, sides=8),
        cylinder(w / 2, 0.34, (0, 0, h - 0.17), look.main, top=w * 0.32, sides=20),
    ]


@kind("plant")
def plant(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    pots = [Material(color=COLORS[c], shine=0.3) for c in ("orange", "white", "blue", "brown")]
    pot = pots[look.seed % 4]
    parts = [
        cylinder(w * 0.24, 0.3, (0, 0, 0.15), pot, top=w * 0.32),
        cylinder(w * 0.29, 0.02, (0, 0, 0.3), EARTH),
    ]
    if look.variant:  # a little tree
        parts.append(cylinder(0.03, h * 0.5, (0, 0, 0.3 + h * 0.2), Material(color=COLORS["brown"]), sides=8))
        for i in range(5):
            a = 2 * math.pi * i / 5 + look.seed
            parts.append(
                ellipsoid(
                    (w * 0.5, w * 0.5, h * 0.28),
                    (w * 0.22 * math.cos(a), w * 0.22 * math.sin(a), h * 0.68),
                    shade(LEAF, 0.9 + 0.1 * i),
                )
            )
        parts.append(ellipsoid((w * 0.5, w * 0.5, h * 0.3), (0, 0, h * 0.84), shade(LEAF, 1.3)))
        return parts
    for i in range(9):  # long leaves
        lean, around = 12 + 14 * (i % 3), 40.0 * i + look.seed
        tall = (h - 0.3) * (1.0 - 0.12 * (i % 3))
        leaf = turned(
            moved(
                ellipsoid((w * 0.2, 0.03, tall), (0, 0, 0), shade(LEAF, 0.8 + 0.08 * (i % 5)), 8),
                (0, 0, tall / 2),
            ),
            lean,
            "x",
        )
        parts.append(moved(turned(leaf, around), (0, 0, 0.28)))
    return parts


@kind("box")
def open_box(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m, t = look.main, 0.03
    return [
        box((w, t, h), (0, -d / 2 + t / 2, h / 2), m),
        box((w, t, h), (0, d / 2 - t / 2, h / 2), m),
        box((t, d, h), (-w / 2 + t / 2, 0, h / 2), m),
        box((t, d, h), (w / 2 - t / 2, 0, h / 2), m),
        box((w - t, d - t, 0.03), (0, 0, h * 0.5), shade(plain(m), 0.5)),
    ]


@kind("basket")
def basket(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w * 0.4, h, (0, 0, h / 2), look.main, top=w / 2, sides=20),
        cylinder(w * 0.44, 0.01, (0, 0, h + 0.002), shade(plain(look.main), 0.4), sides=20),
    ]


@kind("bin")
def waste_bin(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w * 0.38, h, (0, 0, h / 2), look.main, top=w / 2),
        cylinder(w * 0.46, 0.012, (0, 0, h), Material(color=(0.05, 0.05, 0.05))),
    ]


@kind("ball")
def ball(size: Size, look: Look) -> list[Part]:
    w = size[0]
    return [ellipsoid((w, w, w), (0, 0, w / 2), look.main, 18)]


@kind("teddy bear")
def teddy(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m, light = look.main, shade(look.main, 1.4)
    parts = [
        ellipsoid((w * 0.75, d * 0.8, h * 0.55), (0, 0, h * 0.3), m),
        ellipsoid((w * 0.62, d * 0.7, h * 0.42), (0, -d * 0.03, h * 0.72), m),
        ellipsoid((w * 0.26, d * 0.2, h * 0.16), (0, -d * 0.36, h * 0.67), light, 8),
        ellipsoid((w * 0.1, d * 0.1, h * 0.06), (0, -d * 0.46, h * 0.7), DARK, 8),
    ]
    for s in (-1, 1):
        parts += [
            ellipsoid((w * 0.24, d * 0.16, h * 0.18), (s * w * 0.26, 0, h * 0.9), m, 8),
            ellipsoid((w * 0.08, d * 0.08, h * 0.06), (s * w * 0.12, -d * 0.36, h * 0.79), DARK, 8),
            ellipsoid((w * 0.24, d * 0.3, h * 0.3), (s * w * 0.4, -d * 0.1, h * 0.38), m, 8),
            ellipsoid((w * 0.3, d * 0.5, h * 0.22), (s * w * 0.26, -d * 0.28, h * 0.11), light, 8),
        ]
    return parts


@kind("rug")
def rug(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = stretched(look.main) if look.main.pattern == "bordered" else look.main
    if look.variant == 2:
        return [cylinder(min(w, d) / 2, h, (0, 0, h / 2), m, sides=32)]
    return [box((w, d, h), (0, 0, h / 2), m)]
