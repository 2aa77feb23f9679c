"""Kitchen, bathroom and fireplace objects."""

from __future__ import annotations

from attention_atlas.synthetic.mesh import Material, Part, box, cylinder, ellipsoid
from attention_atlas.synthetic.rooms.kinds import DARK, METAL, OAK, WHITE, Look, Size, kind, shade, spread


@kind("toilet")
def toilet(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    return [
        box((w, 0.2, 0.36), (0, d / 2 - 0.1, h - 0.18), m),
        box((w + 0.02, 0.22, 0.03), (0, d / 2 - 0.1, h), m),
        cylinder(0.12, 0.36, (0, -0.02, 0.18), m, top=0.18),
        box((0.2, 0.25, 0.36), (0, d / 2 - 0.14, 0.2), m),
        ellipsoid((w, d - 0.22, 0.16), (0, -0.1, 0.38), m),
        ellipsoid((w * 0.72, (d - 0.22) * 0.72, 0.03), (0, -0.12, 0.455), DARK),
    ]


@kind("bathtub")
def bathtub(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m, t = look.main, 0.08
    water = Material(color=(0.55, 0.78, 0.9), shine=0.8)
    return [
        box((w, t, h), (0, -d / 2 + t / 2, h / 2), m),
        box((w, t, h), (0, d / 2 - t / 2, h / 2), m),
        box((t, d - 2 * t, h), (-w / 2 + t / 2, 0, h / 2), m),
        box((t, d - 2 * t, h), (w / 2 - t / 2, 0, h / 2), m),
        box((w - 2 * t, d - 2 * t, 0.05), (0, 0, h * 0.72), water),
        box((0.05, 0.05, 0.22), (w / 2 - 0.06, 0, h + 0.1), METAL),
        box((0.2, 0.05, 0.04), (w / 2 - 0.14, 0, h + 0.19), METAL),
    ]


@kind("sink")
def sink(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    base = h - 0.16
    m = look.main
    support: list[Part] = [box((w - 0.04, d - 0.04, base), (0, 0, base / 2), OAK)]
    if look.variant:
        support = [cylinder(0.11, base, (0, 0.05, base / 2), m, top=0.13)]
    return [
        *support,
        box((w, d, 0.16), (0, 0, h - 0.08), m, bottom=0.85),
        ellipsoid((w * 0.75, d * 0.62, 0.03), (0, -0.03, h), Material(color=(0.6, 0.66, 0.7))),
        box((0.05, 0.05, 0.2), (0, d / 2 - 0.06, h + 0.1), METAL),
        box((0.04, 0.17, 0.04), (0, d / 2 - 0.12, h + 0.19), METAL),
    ]


@kind("fridge")
def fridge(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    split = h * 0.62
    parts = [box((w, d - 0.06, h), (0, 0.03, h / 2), look.main)]
    for low, high in ((0.04, split - 0.02), (split + 0.02, h - 0.02)):
        parts.append(
            box((w - 0.02, 0.06, high - low), (0, -d / 2 + 0.03, (low + high) / 2), shade(look.main, 1.1))
        )
    parts += [
        box((0.04, 0.05, 0.35), (-w / 2 + 0.08, -d / 2 - 0.02, z), DARK) for z in (split - 0.25, split + 0.23)
    ]
    return parts


@kind("stove")
def stove(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    glass = Material(color=(0.06, 0.06, 0.08), shine=0.9)
    parts = [
        box((w, d, h), (0, 0, h / 2), look.main),
        box((w - 0.14, 0.02, 0.34), (0, -d / 2, h * 0.42), glass),
        box((w - 0.12, 0.05, 0.035), (0, -d / 2 - 0.02, h * 0.68), METAL),
        box((w - 0.02, d - 0.02, 0.01), (0, 0, h + 0.005), glass),
    ]
    parts += [
        cylinder(0.025, 0.04, (x, -d / 2 - 0.01, h * 0.86), DARK, axis="y", sides=8) for x in spread(w, 4)
    ]
    parts += [
        cylinder(0.09, 0.012, (x, y, h + 0.012), METAL) for x in (-w / 4, w / 4) for y in (-d / 4, d / 4)
    ]
    return parts


@kind("fireplace")
def fireplace(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    mouth_w, mouth_h = w * 0.5, h * 0.55
    fire = [
        ellipsoid(
            (0.16, 0.1, 0.3 - 0.08 * abs(i)),
            (0.12 * i, -0.02, 0.2),
            Material(color=(0.98, 0.5 + 0.15 * (i == 0), 0.1)),
        )
        for i in (-1, 0, 1)
    ]
    side = (w - mouth_w) / 2
    return [
        box((side, d, h - 0.08), (-(mouth_w + side) / 2, 0, (h - 0.08) / 2), m),
        box((side, d, h - 0.08), ((mouth_w + side) / 2, 0, (h - 0.08) / 2), m),
        box((mouth_w, d, h - 0.08 - mouth_h), (0, 0, mouth_h + (h - 0.08 - mouth_h) / 2), m),
        box((mouth_w, 0.05, mouth_h), (0, d / 2 - 0.03, mouth_h / 2), DARK),
        box((w + 0.12, d + 0.08, 0.08), (0, -0.03, h - 0.04), WHITE),
        cylinder(0.05, mouth_w * 0.7, (0, -0.02, 0.06), OAK, axis="x", sides=8),
        *fire,
    ]
