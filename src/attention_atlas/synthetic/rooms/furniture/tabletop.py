"""Objects on furniture."""

from __future__ import annotations

import math

from attention_atlas.synthetic.mesh import (
    Material,
    Part,
    box,
    cushion,
    cylinder,
    ellipsoid,
    moved,
    panel,
    turned,
)
from attention_atlas.synthetic.rooms.kinds import COLORS, DARK, LEAF, METAL, Look, Size, kind, plain, shade


@kind("lamp")
def lamp(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    foot = METAL if look.variant else Material(color=COLORS["brown"], shine=0.3)
    return [
        cylinder(w * 0.28, 0.04, (0, 0, 0.02), foot),
        ellipsoid((w * 0.35, w * 0.35, h * 0.4), (0, 0, h * 0.26), foot),
        cylinder(w / 2, h * 0.46, (0, 0, h * 0.77), look.main, top=w * 0.3, sides=20),
    ]


@kind("flowers")
def flowers(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    glass = Material(color=(0.75, 0.85, 0.9), shine=0.8)
    parts = [cylinder(0.06, h * 0.45, (0, 0, h * 0.225), glass, top=0.075)]
    for i in range(7):
        a, r = 2 * math.pi * i / 6, 0.0 if i == 6 else w * 0.34
        x, y, z = r * math.cos(a), r * math.sin(a), h * (0.78 if i < 6 else 0.9)
        parts.append(ellipsoid((w * 0.36, w * 0.36, h * 0.2), (x, y, z), look.main, 8))
        parts.append(ellipsoid((w * 0.2, w * 0.2, h * 0.24), (x * 0.6, y * 0.6, h * 0.56), LEAF, 8))
    return parts


@kind("vase")
def vase(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w * 0.25, h * 0.1, (0, 0, h * 0.05), plain(look.main), top=w * 0.38),
        ellipsoid((w, w, h * 0.66), (0, 0, h * 0.38), look.main),
        cylinder(w * 0.2, h * 0.35, (0, 0, h * 0.82), plain(look.main), top=w * 0.34),
    ]


@kind("books")
def books(size: Size, look: Look) -> list[Part]:
    return [box(size, (0, 0, size[2] / 2), Material(pattern="spines", scale=0, seed=look.seed))]


@kind("pillow")
def pillow(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    return [moved(turned(cushion((w, d, h), (0, 0, 0), look.main), -18, "x"), (0, 0, h * 0.5))]


@kind("tv")
def tv(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    screen = Material(color=(0.1, 0.14, 0.22), shine=1.0)
    return [
        box((w * 0.4, d, 0.03), (0, 0, 0.015), DARK),
        box((0.08, 0.05, 0.12), (0, 0, 0.07), DARK),
        box((w, 0.06, h - 0.1), (0, 0, 0.1 + (h - 0.1) / 2), look.main),
        panel(w - 0.07, h - 0.17, (0, -0.035, 0.1 + (h - 0.1) / 2), screen),
    ]


@kind("laptop")
def laptop(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    screen = Material(color=(0.35, 0.6, 0.9), shine=0.4)
    lid = [box((w, 0.02, h), (0, 0, h / 2), look.main), panel(w - 0.05, h - 0.05, (0, -0.012, h / 2), screen)]
    return [
        box((w, d * 0.7, 0.025), (0, -d * 0.12, 0.0125), look.main),
        box((w * 0.85, d * 0.35, 0.005), (0, -d * 0.1, 0.028), DARK),
        *[moved(turned(p, -12, "x"), (0, d * 0.22, 0.02)) for p in lid],
    ]


@kind("bowl")
def bowl(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    inside = shade(look.main, 0.6)
    parts = [
        cylinder(w * 0.25, h, (0, 0, h / 2), look.main, top=w / 2, sides=20),
        cylinder(w * 0.45, 0.01, (0, 0, h), inside, sides=20),
    ]
    if look.variant:
        fruit = [COLORS[c] for c in ("red", "yellow", "green", "orange")]
        parts += [
            ellipsoid(
                (w * 0.36,) * 3,
                (w * 0.2 * math.cos(i * 1.57), w * 0.2 * math.sin(i * 1.57), h),
                Material(color=fruit[i], shine=0.4),
                8,
            )
            for i in range(4)
        ]
    return parts


@kind("bottle")
def bottle(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w / 2, h * 0.6, (0, 0, h * 0.3), look.main),
        cylinder(w / 2, h * 0.15, (0, 0, h * 0.675), look.main, top=w * 0.2),
        cylinder(w * 0.2, h * 0.25, (0, 0, h * 0.875), look.main),
    ]


@kind("pot")
def pot(size: Size, look: Look) -> list[Part]:
    w, _, h = size
    return [
        cylinder(w * 0.42, h * 0.8, (0, 0, h * 0.4), look.main, sides=20),
        cylinder(w * 0.44, h * 0.1, (0, 0, h * 0.84), shade(look.main, 0.8), top=w * 0.2, sides=20),
        ellipsoid((0.05, 0.05, 0.05), (0, 0, h * 0.92), DARK, 8),
        box((w * 1.15, 0.04, 0.03), (0, 0, h * 0.6), DARK),
    ]
