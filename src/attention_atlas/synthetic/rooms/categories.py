"""The contents of each kind of room: one table per category, read by sample.py.

A step is `way kind [@anchor] [probability] [xleast-most]`; steps are separated by commas. Ways are functions
of ways/. To add a category, add a call of `category` at the end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    way: str  # a function of ways/
    kind: str
    anchor: str = ""  # the kind beside, before, on, in, around or over which it is placed
    chance: float = 1.0
    times: tuple[int, int] = (1, 1)  # at least, at most


@dataclass(frozen=True)
class Category:
    name: str
    weight: float
    floors: tuple[str, ...]  # keys of shell.FLOORS
    walls: tuple[str, ...]  # keys of shell.WALLS
    signs: tuple[str, ...]
    steps: tuple[Step, ...]


_STEP = re.compile(r"(\w+) ([a-z ]+?)(?: @([a-z ]+?))?(?: ([\d.]+))?(?: x(\d)(?:-(\d))?)?")


def _steps(text: str) -> tuple[Step, ...]:
    steps = []
    for step in text.split(","):
        found = _STEP.fullmatch(" ".join(step.split()))
        if found is None:
            raise ValueError(f"not a step: {step}")
        way, kind, anchor, chance, least, most = found.groups()
        count = (int(least or 1), int(most or least or 1))
        steps.append(Step(way, kind, anchor or "", float(chance or 1.0), count))
    return tuple(steps)


CATEGORIES: dict[str, Category] = {}


def category(name: str, weight: float, floors: str, walls: str, signs: tuple[str, ...], steps: str) -> None:
    CATEGORIES[name] = Category(
        name, weight, tuple(floors.split()), tuple(walls.split()), signs, _steps(steps)
    )


category(
    "bathroom",
    1.1,
    "tiles tiles checker",
    "tiled tiled white blue green yellow pink",
    ("WASH HANDS", "BATH", "TOILET", "NO SMOKING"),
    """
    open window 0.5, open door 0.4, against bathtub 0.85, against sink 0.95, over mirror @sink 0.8,
    against toilet 0.95, against cabinet 0.4, on bottle @cabinet 0.6 x1-2, on flowers @cabinet 0.4,
    hang towel 0.8 x1-2, hang shelf 0.45, on bottle @shelf 0.7 x1-3, hang painting 0.3, hang sign 0.54,
    hang clock 0.15, under rug 0.6, corner bin 0.45, corner plant 0.35, free stool 0.4, free basket 0.5,
    ceiling ceiling lamp 0.45
    """,
)

category(
    "bedroom",
    1.5,
    "planks carpet carpet dark_planks",
    "white beige blue pink green purple striped floral",
    ("DREAM", "SLEEP", "LOVE"),
    """
    open window 0.8, drape curtains @window 0.7, open door 0.3, against bed,
    beside nightstand @bed 0.85 x1-2, on lamp @nightstand 0.85 x1-2, against wardrobe 0.5,
    against dresser 0.5, on tv @dresser 0.3, on vase @dresser 0.3, against desk 0.25,
    before chair @desk 0.8, on laptop @desk 0.6, under rug 0.6, seat pillow @bed 0.95 x1-3,
    seat teddy bear @bed 0.2, hang painting 0.6 x1-2, hang mirror 0.35, hang sign 0.34, hang clock 0.2,
    hang shelf 0.25, on books @shelf 0.8, angled armchair 0.25, corner plant 0.35,
    corner floor lamp 0.25, ceiling ceiling lamp 0.45, free basket 0.25, free bench 0.15, free box 0.15
    """,
)

category(
    "dining room",
    1.1,
    "planks dark_planks tiles carpet",
    "white beige green red striped gray floral",
    ("EAT", "GATHER", "FAMILY"),
    """
    open window 0.75 x1-2, drape curtains @window 0.5, open door 0.35, free table,
    around chair @table 1.0 x3-5, against cabinet 0.7 x1-2, against fireplace 0.2, under rug 0.5,
    on flowers @table 0.55, on bowl @table 0.5, on bottle @table 0.4 x1-2, on vase @cabinet 0.6,
    on lamp @cabinet 0.5, on books @cabinet 0.2, hang painting 0.8 x1-3, hang mirror 0.3,
    hang clock 0.3, hang sign 0.34, ceiling chandelier 0.6, ceiling ceiling lamp 0.25,
    corner plant 0.5 x1-2, corner floor lamp 0.25
    """,
)

category(
    "hallway",
    0.9,
    "planks tiles checker dark_planks",
    "white beige gray yellow green brick striped",
    ("WELCOME", "EXIT", "PRIVATE", "NO DOGS", "PUSH"),
    """
    open door 1.0 x1-3, open window 0.3, against bench 0.6, against cabinet 0.6, on vase @cabinet 0.5,
    on flowers @cabinet 0.4, on lamp @cabinet 0.5, against wardrobe 0.35, against chair 0.4 x1-2,
    hang mirror 0.6, hang painting 0.6 x1-3, hang sign 0.9 x1-2, hang clock 0.4, under rug 0.7,
    corner plant 0.6 x1-2, corner floor lamp 0.35, free box 0.35 x1-2, free basket 0.25, free ball 0.2,
    ceiling ceiling lamp 0.6, ceiling chandelier 0.2
    """,
)

category(
    "kitchen",
    1.4,
    "checker tiles tiles planks",
    "white yellow green blue tiled beige gray",
    ("EAT", "COFFEE", "KITCHEN", "FRESH FOOD"),
    """
    open window 0.7, open door 0.35, against stove, against fridge 0.9, against sink 0.85,
    against cabinet 0.8 x1-2, free table 0.65, around chair @table 0.95 x2-4, free stool 0.25 x1-2,
    on pot @stove 0.75 x1-2, on bowl @cabinet 0.6, on bottle @cabinet 0.5 x1-2, on bowl @table 0.5,
    on flowers @table 0.35, on bottle @table 0.4, hang shelf 0.6 x1-2, on pot @shelf 0.3,
    on bowl @shelf 0.5 x1-2, on bottle @shelf 0.5 x1-2, hang clock 0.5, hang sign 0.68, hang towel 0.4,
    hang painting 0.2, ceiling ceiling lamp 0.6 x1-2, corner bin 0.5, under rug 0.2, corner plant 0.2,
    free basket 0.25
    """,
)

category(
    "library",
    0.8,
    "carpet planks dark_planks",
    "beige green red white gray brown",
    ("QUIET PLEASE", "READ", "LIBRARY"),
    """
    open window 0.6 x1-2, open door 0.3, against bookshelf 1.0 x2-4, fill books @bookshelf 1.0 x3-6,
    against fireplace 0.25, on vase @fireplace 0.6, free table 0.5, around chair @table 0.9 x1-3,
    on books @table 0.7, on lamp @table 0.6, angled armchair 0.8 x1-2, against desk 0.3,
    before chair @desk 0.8, on lamp @desk 0.6, under rug 0.7, hang painting 0.5 x1-2, hang sign 0.74,
    hang clock 0.4, corner floor lamp 0.5, corner plant 0.4, ceiling chandelier 0.35, free box 0.2,
    free stool 0.25
    """,
)

category(
    "living room",
    1.6,
    "planks planks carpet dark_planks",
    "white beige gray green blue striped brick",
    ("HOME", "LOVE", "RELAX", "FAMILY"),
    """
    open window 0.8 x1-2, drape curtains @window 0.6, open door 0.25, against fireplace 0.3,
    against sofa, against sofa 0.2, against cabinet 0.6, on tv @cabinet 0.8, against bookshelf 0.45,
    before coffee table @sofa 0.8, angled armchair 0.6 x1-2, under rug 0.7, corner floor lamp 0.5,
    corner plant 0.5 x1-2, beside nightstand @sofa 0.3, on lamp @nightstand 0.7,
    hang painting 0.75 x1-3, hang sign 0.41, hang clock 0.3, on vase @fireplace 0.6,
    on flowers @coffee table 0.45, on books @coffee table 0.35, on bowl @coffee table 0.3,
    seat pillow @sofa 0.8 x1-3, seat pillow @armchair 0.3, fill books @bookshelf 0.9 x1-3,
    ceiling ceiling lamp 0.35, free basket 0.2, free ball 0.15
    """,
)

category(
    "nursery",
    1.0,
    "planks carpet",
    "pink blue yellow green white dotted striped",
    ("PLAY", "BABY", "ABC", "DREAM"),
    """
    open window 0.75, drape curtains @window 0.6, open door 0.25, against crib, against dresser 0.7,
    on lamp @dresser 0.6, on teddy bear @dresser 0.4, against bookshelf 0.45,
    fill books @bookshelf 0.9 x1-2, angled armchair 0.5, seat pillow @armchair 0.4, under rug 0.85,
    free box 0.6 x1-2, inside ball @box 0.6, free basket 0.4, inside ball @basket 0.5,
    inside teddy bear @basket 0.4, free ball 0.8 x1-3, free teddy bear 0.8 x1-2, hang painting 0.7 x1-2,
    hang sign 0.68, hang clock 0.2, hang shelf 0.3, on books @shelf 0.7, ceiling ceiling lamp 0.5,
    corner plant 0.2
    """,
)

category(
    "office",
    1.3,
    "carpet carpet planks tiles",
    "white gray beige blue green",
    ("MEETING ROOM", "OFFICE", "NO SMOKING", "OPEN", "WORK HARD"),
    """
    open window 0.7 x1-2, open door 0.5, against desk 1.0 x1-2, before chair @desk 0.95 x1-2,
    on laptop @desk 0.85 x1-2, on lamp @desk 0.5, on books @desk 0.4, against bookshelf 0.7 x1-2,
    fill books @bookshelf 0.95 x1-3, against cabinet 0.4, on box @cabinet 0.5, angled armchair 0.35,
    angled chair 0.35 x1-2, free table 0.15, hang sign 0.88, hang clock 0.55, hang painting 0.45 x1-2,
    hang shelf 0.25, on books @shelf 0.8, corner bin 0.6, corner plant 0.5, corner floor lamp 0.25,
    free box 0.5 x1-3, ceiling ceiling lamp 0.4, under rug 0.3
    """,
)
