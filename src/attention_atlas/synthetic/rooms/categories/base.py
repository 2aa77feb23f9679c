"""The contents of each kind of room: one table per category, read by sample.py.

A line is one step: `way kind [of anchor]`, its probability, and how many times. Ways are functions of ways/.
To add a category, write one more file like kitchen.py.
"""

from __future__ import annotations

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


def _steps(text: str) -> tuple[Step, ...]:
    """Parse lines `way | kind | anchor | chance | least-most`; trailing fields are optional."""
    steps = []
    for line in text.strip().splitlines():
        fields = [f.strip() for f in line.split("|")] + [""] * 3
        way, name, anchor, chance, times = fields[:5]
        least, _, most = times.partition("-")
        count = (int(least or 1), int(most or least or 1))
        steps.append(Step(way, name, anchor, float(chance or 1.0), count))
    return tuple(steps)


CATEGORIES: dict[str, Category] = {}


def category(name: str, weight: float, floors: str, walls: str, signs: tuple[str, ...], steps: str) -> None:
    CATEGORIES[name] = Category(
        name, weight, tuple(floors.split()), tuple(walls.split()), signs, _steps(steps)
    )
