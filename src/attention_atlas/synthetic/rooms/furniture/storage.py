"""Tables, desks and storage furniture."""

from __future__ import annotations

from attention_atlas.synthetic.mesh import Material, Part, box, cylinder
from attention_atlas.synthetic.rooms.kinds import DARK, METAL, Look, Size, kind, legs, shade


@kind("table")
def table(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    if look.variant == 2:
        r = min(w, d) / 2
        return [
            cylinder(r, 0.05, (0, 0, h - 0.025), look.main, sides=24),
            cylinder(0.06, h - 0.07, (0, 0, h / 2), look.main),
            cylinder(r * 0.5, 0.04, (0, 0, 0.02), look.main, top=r * 0.4),
        ]
    apron = box((w - 0.12, d - 0.12, 0.08), (0, 0, h - 0.09), shade(look.main, 0.9))
    return [
        box((w, d, 0.05), (0, 0, h - 0.025), look.main),
        apron,
        *legs(w - 0.06, d - 0.06, h - 0.05, look.main, 0.07),
    ]


@kind("coffee table")
def coffee_table(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    top = box((w, d, 0.05), (0, 0, h - 0.025), look.main)
    if look.variant:
        return [
            top,
            box((w - 0.14, d - 0.14, 0.04), (0, 0, 0.12), look.main),
            *legs(w - 0.06, d - 0.06, h - 0.05, look.main, 0.06),
        ]
    return [
        top,
        *[
            box((0.06, d - 0.04, h - 0.05), (sx * (w / 2 - 0.1), 0, (h - 0.05) / 2), look.main)
            for sx in (-1, 1)
        ],
    ]


@kind("desk")
def desk(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    chest = 0.4
    x = (w / 2 - chest / 2 - 0.03) * (1 if look.seed % 2 else -1)
    parts = [
        box((w, d, 0.05), (0, 0, h - 0.025), m),
        box((chest, d - 0.04, h - 0.05), (x, 0, (h - 0.05) / 2), m),
    ]
    parts += [
        box((chest - 0.06, 0.02, 0.17), (x, -d / 2 + 0.015, 0.14 + 0.21 * i), shade(m, 1.2)) for i in range(3)
    ]
    parts += [box((0.1, 0.02, 0.025), (x, -d / 2, 0.15 + 0.21 * i), METAL) for i in range(3)]
    return [*parts, box((0.05, d - 0.06, h - 0.05), (-x / abs(x) * (w / 2 - 0.05), 0, (h - 0.05) / 2), m)]


def _drawers(w: float, d: float, h: float, m: Material, rows: int, columns: int = 1) -> list[Part]:
    """A closed chest with rows × columns drawer fronts and knobs."""
    parts = [
        box((w, d, h - 0.06), (0, 0, 0.06 + (h - 0.06) / 2), m),
        box((w - 0.06, d - 0.06, 0.06), (0, 0, 0.03), DARK),
    ]
    tall, wide = (h - 0.12) / rows, (w - 0.04) / columns
    for row in range(rows):
        for column in range(columns):
            x, z = -w / 2 + 0.02 + wide * (column + 0.5), 0.08 + tall * (row + 0.5)
            parts.append(box((wide - 0.05, 0.025, tall - 0.05), (x, -d / 2, z), shade(m, 1.2)))
            parts.append(box((min(0.14, wide * 0.3), 0.04, 0.03), (x, -d / 2 - 0.01, z), DARK))
    return parts


@kind("nightstand")
def nightstand(size: Size, look: Look) -> list[Part]:
    return _drawers(*size, look.main, rows=2)


@kind("dresser")
def dresser(size: Size, look: Look) -> list[Part]:
    return _drawers(*size, look.main, rows=3, columns=2)


def _doors(w: float, d: float, h: float, m: Material, knob: float) -> list[Part]:
    parts = [
        box((w, d, h - 0.06), (0, 0, 0.06 + (h - 0.06) / 2), m),
        box((w - 0.06, d - 0.06, 0.06), (0, 0, 0.03), DARK),
    ]
    for side in (-1, 1):
        parts.append(
            box((w / 2 - 0.05, 0.025, h - 0.16), (side * w / 4, -d / 2, 0.06 + (h - 0.06) / 2), shade(m, 1.2))
        )
        parts.append(box((0.03, 0.04, 0.16), (side * 0.06, -d / 2 - 0.015, h * knob), METAL))
    return parts


@kind("cabinet")
def cabinet(size: Size, look: Look) -> list[Part]:
    return _doors(*size, look.main, knob=0.7)


@kind("wardrobe")
def wardrobe(size: Size, look: Look) -> list[Part]:
    return _doors(*size, look.main, knob=0.5)


@kind("bookshelf")
def bookshelf(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [box((0.05, d, h), (sx * (w / 2 - 0.025), 0, h / 2), m) for sx in (-1, 1)]
    parts.append(box((w - 0.1, 0.03, h), (0, d / 2 - 0.015, h / 2), shade(m, 0.7)))
    # Four boards give three levels; layout.py puts books on them.
    parts += [box((w - 0.1, d - 0.03, 0.05), (0, -0.015, z), m) for z in shelf_levels(h)]
    return [*parts, box((w - 0.1, d - 0.03, 0.05), (0, -0.015, h - 0.025), m)]


def shelf_levels(h: float) -> list[float]:
    """Heights of the middle of the boards of a bookshelf, the lowest first."""
    n = 4
    return [0.06 + i * (h - 0.1) / n for i in range(n)]
