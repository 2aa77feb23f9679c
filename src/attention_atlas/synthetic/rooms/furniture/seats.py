"""Seats and beds."""

from __future__ import annotations

from attention_atlas.synthetic.mesh import Part, box, cylinder
from attention_atlas.synthetic.rooms.kinds import (
    DARK,
    OAK,
    WHITE,
    Look,
    Size,
    kind,
    legs,
    plain,
    shade,
    spread,
)


@kind("sofa")
def sofa(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    arm, seat = 0.2, 0.42
    cushion = shade(look.main, 1.12)
    n = 3 if w > 1.95 else 2
    wide = (w - 2 * arm) / n
    parts = [
        box((w - 2 * arm, d, 0.26), (0, 0, 0.21), plain(look.main)),
        box((w - 2 * arm, 0.2, h - 0.1), (0, d / 2 - 0.1, 0.1 + (h - 0.1) / 2), look.main),
        box((arm, d, 0.52), (-w / 2 + arm / 2, 0, 0.36), look.main),
        box((arm, d, 0.52), (w / 2 - arm / 2, 0, 0.36), look.main),
        *legs(w - 0.1, d - 0.1, 0.1, DARK),
    ]
    for i in range(n):
        x = -w / 2 + arm + wide * (i + 0.5)
        parts.append(box((wide - 0.03, d - 0.22, 0.12), (x, -0.11, seat - 0.03), cushion))
        parts.append(
            box((wide - 0.04, 0.12, h - seat - 0.08), (x, d / 2 - 0.25, (h + seat) / 2 - 0.02), cushion)
        )
    return parts


@kind("armchair")
def armchair(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    cushion = shade(look.main, 1.12)
    return [
        box((w - 0.34, d, 0.24), (0, 0, 0.22), plain(look.main)),
        box((w, 0.18, h - 0.1), (0, d / 2 - 0.09, 0.1 + (h - 0.1) / 2), look.main, top=0.9),
        box((0.17, d - 0.1, 0.5), (-w / 2 + 0.085, -0.03, 0.35), look.main),
        box((0.17, d - 0.1, 0.5), (w / 2 - 0.085, -0.03, 0.35), look.main),
        box((w - 0.37, d - 0.2, 0.13), (0, -0.1, 0.4), cushion),
        *legs(w - 0.1, d - 0.1, 0.1, DARK),
    ]


@kind("chair")
def chair(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [box((w, d, 0.06), (0, 0, 0.45), m), *legs(w - 0.02, d - 0.02, 0.43, m)]
    back = d / 2 - 0.03
    if look.variant:
        parts.append(box((w, 0.05, h - 0.52), (0, back, 0.52 + (h - 0.52) / 2), m))
    else:
        parts += [
            box((0.05, 0.05, h - 0.45), (sx * (w / 2 - 0.025), back, 0.45 + (h - 0.45) / 2), m)
            for sx in (-1, 1)
        ]
        parts += [box((w - 0.06, 0.04, 0.09), (0, back, z), m) for z in (h - 0.05, 0.45 + (h - 0.45) * 0.5)]
    return parts


@kind("stool")
def stool(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    if look.variant:
        seat = cylinder(w / 2, 0.07, (0, 0, h - 0.035), look.main)
    else:
        seat = box((w, d, 0.07), (0, 0, h - 0.035), look.main)
    return [seat, *legs(w * 0.7, d * 0.7, h - 0.07, plain(look.main))]


@kind("bench")
def bench(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    sides = [box((0.07, d, h - 0.08), (sx * (w / 2 - 0.12), 0, (h - 0.08) / 2), look.main) for sx in (-1, 1)]
    return [box((w, d, 0.08), (0, 0, h - 0.04), look.main), *sides]


@kind("bed")
def bed(size: Size, look: Look) -> list[Part]:
    """The head is at the back (+y); the cover carries the colour and the pattern."""
    w, d, h = size
    frame = OAK if look.variant == 0 else WHITE
    low = 0.5 * h
    return [
        box((w, 0.07, h), (0, d / 2 - 0.035, h / 2), frame),
        box((w, 0.06, low * 0.9), (0, -d / 2 + 0.03, low * 0.45), frame),
        box((w - 0.02, d - 0.1, low * 0.45), (0, 0, low * 0.35), frame),
        box((w - 0.06, d - 0.14, low * 0.4), (0, 0, low * 0.78), WHITE),
        box((w + 0.03, (d - 0.14) * 0.68, low * 0.5), (0, -d * 0.12, low * 0.75), look.main),
    ]


@kind("crib")
def crib(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [*legs(w, d, h, m, 0.05), box((w - 0.1, d - 0.1, 0.14), (0, 0, 0.4), WHITE)]
    for y in (-d / 2 + 0.02, d / 2 - 0.02):
        parts += [box((w, 0.04, 0.05), (0, y, z), m) for z in (0.3, h - 0.03)]
        parts += [box((0.025, 0.025, h - 0.3), (x, y, 0.3 + (h - 0.3) / 2), m) for x in spread(w, 6)]
    for x in (-w / 2 + 0.02, w / 2 - 0.02):
        parts += [box((0.04, d, 0.05), (x, 0, z), m) for z in (0.3, h - 0.03)]
        parts += [box((0.025, 0.025, h - 0.3), (x, y, 0.3 + (h - 0.3) / 2), m) for y in spread(d, 8)]
    return parts
