"""Furniture that stands on the floor."""

from __future__ import annotations

from attention_atlas.worlds.mesh import Material, Part, box, cylinder, ellipsoid
from attention_atlas.worlds.rooms.kinds import (
    CLOTH,
    DARK,
    METAL,
    OAK,
    PAINT,
    TIMBER,
    WHITE,
    Look,
    Size,
    kind,
    plain,
    shade,
)

SOFT = ("plain", "plain", "plain", "striped", "checkered", "floral")


def legs(w: float, d: float, h: float, material: Material, thick: float = 0.05) -> list[Part]:
    """Four legs at the corners of a w × d footprint."""
    x, y = w / 2 - thick / 2, d / 2 - thick / 2
    return [
        box((thick, thick, h), (sx * x, sy * y, h / 2), material) for sx in (-1, 1) for sy in (-1, 1)
    ]


@kind(
    "sofa", size=((1.6, 2.3), (0.8, 0.95), (0.75, 0.9)), mount="floor", colors=(*CLOTH, "black"),
    materials=("", "", "leather"), patterns=SOFT, words=("couch",), top=0.0, salience=2.0,
)  # fmt: skip
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
        parts.append(box((wide - 0.04, 0.12, h - seat - 0.08), (x, d / 2 - 0.25, (h + seat) / 2 - 0.02), cushion))
    return parts


@kind(
    "armchair", size=((0.8, 1.0), (0.8, 0.9), (0.8, 1.0)), mount="floor", colors=(*CLOTH, "black"),
    materials=("", "leather"), patterns=SOFT, words=("chair", "easy chair"), salience=1.4,
)  # fmt: skip
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


@kind(
    "chair", size=((0.42, 0.52), (0.42, 0.52), (0.85, 1.05)), mount="floor", colors=(*TIMBER, *PAINT),
    materials=("wooden", "", "metal"), salience=1.2, variants=2,
)  # fmt: skip
def chair(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [box((w, d, 0.06), (0, 0, 0.45), m), *legs(w - 0.02, d - 0.02, 0.43, m)]
    back = d / 2 - 0.03
    if look.variant:
        parts.append(box((w, 0.05, h - 0.52), (0, back, 0.52 + (h - 0.52) / 2), m))
    else:
        parts += [
            box((0.05, 0.05, h - 0.45), (sx * (w / 2 - 0.025), back, 0.45 + (h - 0.45) / 2), m) for sx in (-1, 1)
        ]
        parts += [box((w - 0.06, 0.04, 0.09), (0, back, z), m) for z in (h - 0.05, 0.45 + (h - 0.45) * 0.5)]
    return parts


@kind(
    "stool", size=((0.35, 0.45), (0.35, 0.45), (0.5, 0.75)), mount="floor", colors=(*TIMBER, *PAINT),
    materials=("wooden", "", "metal"), variants=2, round_variant=1,
)  # fmt: skip
def stool(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    if look.variant:
        seat = cylinder(w / 2, 0.07, (0, 0, h - 0.035), look.main)
    else:
        seat = box((w, d, 0.07), (0, 0, h - 0.035), look.main)
    return [seat, *legs(w * 0.7, d * 0.7, h - 0.07, plain(look.main))]


@kind(
    "bench", size=((1.0, 1.5), (0.38, 0.48), (0.44, 0.5)), mount="floor", colors=(*TIMBER, *PAINT),
    materials=("wooden", ""), sizes=("small", "long"),
)  # fmt: skip
def bench(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    sides = [box((0.07, d, h - 0.08), (sx * (w / 2 - 0.12), 0, (h - 0.08) / 2), look.main) for sx in (-1, 1)]
    return [box((w, d, 0.08), (0, 0, h - 0.04), look.main), *sides]


@kind(
    "table", size=((0.9, 1.7), (0.8, 1.0), (0.7, 0.78)), mount="floor", colors=(*TIMBER, "white", "gray", "red"),
    materials=("wooden", "wooden", ""), top=1.0, salience=1.8, variants=3, round_variant=2,
)  # fmt: skip
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
    return [box((w, d, 0.05), (0, 0, h - 0.025), look.main), apron, *legs(w - 0.06, d - 0.06, h - 0.05, look.main, 0.07)]


@kind(
    "coffee table", size=((0.8, 1.15), (0.5, 0.65), (0.36, 0.44)), mount="floor", colors=(*TIMBER, "gray"),
    materials=("wooden", "wooden", ""), words=("table", "low table"), top=1.0, salience=1.4, variants=2,
)  # fmt: skip
def coffee_table(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    top = box((w, d, 0.05), (0, 0, h - 0.025), look.main)
    if look.variant:
        return [top, box((w - 0.14, d - 0.14, 0.04), (0, 0, 0.12), look.main), *legs(w - 0.06, d - 0.06, h - 0.05, look.main, 0.06)]
    return [top, *[box((0.06, d - 0.04, h - 0.05), (sx * (w / 2 - 0.1), 0, (h - 0.05) / 2), look.main) for sx in (-1, 1)]]


@kind(
    "desk", size=((1.1, 1.5), (0.55, 0.7), (0.72, 0.78)), mount="floor", colors=(*TIMBER, "gray"),
    materials=("wooden", "wooden", ""), top=1.0, salience=1.5,
)  # fmt: skip
def desk(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    chest = 0.4
    x = (w / 2 - chest / 2 - 0.03) * (1 if look.seed % 2 else -1)
    parts = [box((w, d, 0.05), (0, 0, h - 0.025), m), box((chest, d - 0.04, h - 0.05), (x, 0, (h - 0.05) / 2), m)]
    parts += [
        box((chest - 0.06, 0.02, 0.17), (x, -d / 2 + 0.015, 0.14 + 0.21 * i), shade(m, 1.2)) for i in range(3)
    ]
    parts += [box((0.1, 0.02, 0.025), (x, -d / 2, 0.15 + 0.21 * i), METAL) for i in range(3)]
    return [*parts, box((0.05, d - 0.06, h - 0.05), (-x / abs(x) * (w / 2 - 0.05), 0, (h - 0.05) / 2), m)]


def _drawers(w: float, d: float, h: float, m: Material, rows: int, columns: int = 1) -> list[Part]:
    """A closed chest with rows × columns drawer fronts and knobs."""
    parts = [box((w, d, h - 0.06), (0, 0, 0.06 + (h - 0.06) / 2), m), box((w - 0.06, d - 0.06, 0.06), (0, 0, 0.03), DARK)]
    tall, wide = (h - 0.12) / rows, (w - 0.04) / columns
    for row in range(rows):
        for column in range(columns):
            x, z = -w / 2 + 0.02 + wide * (column + 0.5), 0.08 + tall * (row + 0.5)
            parts.append(box((wide - 0.05, 0.025, tall - 0.05), (x, -d / 2, z), shade(m, 1.2)))
            parts.append(box((min(0.14, wide * 0.3), 0.04, 0.03), (x, -d / 2 - 0.01, z), DARK))
    return parts


@kind(
    "nightstand", size=((0.42, 0.52), (0.38, 0.45), (0.48, 0.58)), mount="floor", colors=TIMBER,
    materials=("wooden", "wooden", ""), words=("bedside table", "side table"), top=1.0,
)  # fmt: skip
def nightstand(size: Size, look: Look) -> list[Part]:
    return _drawers(*size, look.main, rows=2)


@kind(
    "dresser", size=((0.9, 1.3), (0.45, 0.52), (0.8, 1.0)), mount="floor", colors=(*TIMBER, "blue", "green"),
    materials=("wooden", "wooden", ""), words=("chest of drawers",), top=1.0, salience=1.3,
)  # fmt: skip
def dresser(size: Size, look: Look) -> list[Part]:
    return _drawers(*size, look.main, rows=3, columns=2)


def _doors(w: float, d: float, h: float, m: Material, knob: float) -> list[Part]:
    parts = [box((w, d, h - 0.06), (0, 0, 0.06 + (h - 0.06) / 2), m), box((w - 0.06, d - 0.06, 0.06), (0, 0, 0.03), DARK)]
    for side in (-1, 1):
        parts.append(box((w / 2 - 0.05, 0.025, h - 0.16), (side * w / 4, -d / 2, 0.06 + (h - 0.06) / 2), shade(m, 1.2)))
        parts.append(box((0.03, 0.04, 0.16), (side * 0.06, -d / 2 - 0.015, h * knob), METAL))
    return parts


@kind(
    "cabinet", size=((0.9, 1.5), (0.42, 0.52), (0.65, 0.9)), mount="floor", colors=(*TIMBER, "gray", "green", "blue"),
    materials=("wooden", "wooden", ""), words=("cupboard", "sideboard"), top=1.0, salience=1.2,
)  # fmt: skip
def cabinet(size: Size, look: Look) -> list[Part]:
    return _doors(*size, look.main, knob=0.7)


@kind(
    "wardrobe", size=((1.0, 1.5), (0.55, 0.65), (1.85, 2.15)), mount="floor", colors=TIMBER,
    materials=("wooden", "wooden", ""), words=("closet", "armoire"), salience=1.3, sizes=("narrow", "large"),
)  # fmt: skip
def wardrobe(size: Size, look: Look) -> list[Part]:
    return _doors(*size, look.main, knob=0.5)


@kind(
    "bookshelf", size=((0.8, 1.2), (0.3, 0.36), (1.5, 2.0)), mount="floor", colors=(*TIMBER, "gray"),
    materials=("wooden", "wooden", ""), words=("bookcase", "shelf"), holds=0.04, salience=1.3,
    sizes=("narrow", "wide"),
)  # fmt: skip
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


@kind(
    "bed", size=((1.0, 1.8), (1.9, 2.1), (0.9, 1.15)), mount="floor", colors=CLOTH, patterns=SOFT,
    salience=2.2, top=0.5, sizes=("small", "large"), variants=2,
)  # fmt: skip
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


@kind(
    "crib", size=((0.7, 0.8), (1.1, 1.3), (0.85, 0.95)), mount="floor", colors=("white", "brown", "beige"),
    materials=("wooden",), words=("cot",), salience=1.6,
)  # fmt: skip
def crib(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    parts = [*legs(w, d, h, m, 0.05), box((w - 0.1, d - 0.1, 0.14), (0, 0, 0.4), WHITE)]
    for y in (-d / 2 + 0.02, d / 2 - 0.02):
        parts += [box((w, 0.04, 0.05), (0, y, z), m) for z in (0.3, h - 0.03)]
        parts += [box((0.025, 0.025, h - 0.3), (x, y, 0.3 + (h - 0.3) / 2), m) for x in _spread(w, 6)]
    for x in (-w / 2 + 0.02, w / 2 - 0.02):
        parts += [box((0.04, d, 0.05), (x, 0, z), m) for z in (0.3, h - 0.03)]
        parts += [box((0.025, 0.025, h - 0.3), (x, y, 0.3 + (h - 0.3) / 2), m) for y in _spread(d, 8)]
    return parts


def _spread(width: float, n: int) -> list[float]:
    return [-width / 2 + width * (i + 1) / (n + 1) for i in range(n)]


@kind(
    "toilet", size=((0.38, 0.42), (0.62, 0.7), (0.78, 0.85)), mount="floor", colors=("white",), salience=1.5,
    sizes=("", ""),
)  # fmt: skip
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


@kind(
    "bathtub", size=((1.5, 1.75), (0.7, 0.8), (0.52, 0.6)), mount="floor", colors=("white", "white", "gray", "beige"),
    words=("tub",), salience=1.7,
)  # fmt: skip
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


@kind(
    "sink", size=((0.55, 0.75), (0.45, 0.52), (0.84, 0.9)), mount="floor", colors=("white", "white", "beige"),
    salience=1.4, words=("washbasin", "basin"), variants=2,
)  # fmt: skip
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


@kind(
    "fridge", size=((0.65, 0.8), (0.62, 0.7), (1.6, 1.85)), mount="floor", colors=("white", "gray", "black", "red"),
    materials=("", "metal"), words=("refrigerator",), salience=1.5, sizes=("narrow", "large"),
)  # fmt: skip
def fridge(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    split = h * 0.62
    parts = [box((w, d - 0.06, h), (0, 0.03, h / 2), look.main)]
    for low, high in ((0.04, split - 0.02), (split + 0.02, h - 0.02)):
        parts.append(box((w - 0.02, 0.06, high - low), (0, -d / 2 + 0.03, (low + high) / 2), shade(look.main, 1.1)))
    parts += [box((0.04, 0.05, 0.35), (-w / 2 + 0.08, -d / 2 - 0.02, z), DARK) for z in (split - 0.25, split + 0.23)]
    return parts


@kind(
    "stove", size=((0.6, 0.72), (0.58, 0.64), (0.86, 0.92)), mount="floor", colors=("white", "black", "gray", "red"),
    materials=("", "metal"), words=("oven",), salience=1.5, top=1.0,
)  # fmt: skip
def stove(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    glass = Material(color=(0.06, 0.06, 0.08), shine=0.9)
    parts = [
        box((w, d, h), (0, 0, h / 2), look.main),
        box((w - 0.14, 0.02, 0.34), (0, -d / 2, h * 0.42), glass),
        box((w - 0.12, 0.05, 0.035), (0, -d / 2 - 0.02, h * 0.68), METAL),
        box((w - 0.02, d - 0.02, 0.01), (0, 0, h + 0.005), glass),
    ]
    parts += [cylinder(0.025, 0.04, (x, -d / 2 - 0.01, h * 0.86), DARK, axis="y", sides=8) for x in _spread(w, 4)]
    parts += [cylinder(0.09, 0.012, (x, y, h + 0.012), METAL) for x in (-w / 4, w / 4) for y in (-d / 4, d / 4)]
    return parts


@kind(
    "fireplace", size=((1.1, 1.4), (0.34, 0.42), (1.0, 1.2)), mount="floor", colors=("red", "gray", "white", "brown"),
    materials=("brick",), salience=1.7, top=1.0,
)  # fmt: skip
def fireplace(size: Size, look: Look) -> list[Part]:
    w, d, h = size
    m = look.main
    mouth_w, mouth_h = w * 0.5, h * 0.55
    fire = [
        ellipsoid((0.16, 0.1, 0.3 - 0.08 * abs(i)), (0.12 * i, -0.02, 0.2), Material(color=(0.98, 0.5 + 0.15 * (i == 0), 0.1)))
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
