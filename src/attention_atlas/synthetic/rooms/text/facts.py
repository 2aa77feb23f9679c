"""Relations that are geometrically true of a room: on, in, against, above, beside, in front of, ...

Directions are the viewer's. Thresholds are chosen so that a person who sees the image agrees; doubtful
relations are not facts. Each fact has a canonical relation; its wordings are in `RELATION_WORDS`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from attention_atlas.synthetic.rooms.text.things import Range, Thing, View

# canonical relation -> (type by Kolomiyets et al. 2013, weight, words)
RELATION_WORDS: dict[str, tuple[str, float, tuple[str, ...]]] = {
    "on": ("region", 3.0, ("on", "on", "on", "on", "on top of")),
    "on wall": ("region", 1.6, ("on",)),
    "on floor": ("region", 1.0, ("on",)),
    "on rug": ("region", 1.3, ("on",)),
    "draped": ("region", 1.6, ("on", "on", "around")),
    "in": ("region", 3.0, ("in", "in", "inside")),
    "hanging": ("region", 1.8, ("from",)),
    "against": ("region", 0.5, ("against", "against", "along")),
    "corner": ("region", 0.9, ("in the corner of",)),
    "middle": ("region", 1.0, ("in the middle of", "in the center of")),
    "foot": ("region", 1.2, ("at the foot of", "at the end of")),
    "around": ("region", 3.0, ("around",)),
    "each side": ("region", 3.0, ("on each side of", "on either side of")),
    "above": ("direction", 1.6, ("above", "above", "over")),
    "below": ("direction", 0.35, ("under", "below")),
    "under": ("direction", 2.0, ("under", "under", "underneath", "below")),
    "left": ("direction", 0.3, ("to the left of", "to the left of", "on the left side of", "left of")),
    "right": ("direction", 0.3, ("to the right of", "to the right of", "on the right side of", "right of")),
    "front": ("direction", 0.75, ("in front of",)),
    "behind": ("direction", 0.6, ("behind",)),
    "between": ("direction", 1.5, ("between", "in between")),
    "across": ("direction", 0.8, ("across from", "opposite")),
    "next to": ("distance", 0.13, ("next to", "next to", "beside", "by")),
    "near": ("distance", 0.07, ("near", "near", "close to")),
    "far": ("distance", 0.06, ("far from", "far away from")),
}
FLAT = ("rug",)  # not a landmark for sides and distances: people say "on"
STANDS_OVER = ("table", "coffee table", "desk", "bed", "sofa")  # a rug is said to be under these


@dataclass(frozen=True)
class Fact:
    """`targets` are in `relation` to `landmarks` (ids; none: the room as a whole)."""

    targets: tuple[int, ...]
    relation: str
    landmarks: tuple[int, ...]

    @property
    def type(self) -> str:
        return RELATION_WORDS[self.relation][0]

    @property
    def weight(self) -> float:
        return RELATION_WORDS[self.relation][1]


def overlap(a: Range, b: Range) -> float:
    """Length of the common part of two ranges; negative: the gap between them."""
    return min(a[1], b[1]) - max(a[0], b[0])


def length(a: Range) -> float:
    return a[1] - a[0]


def common(a: Range, b: Range) -> float:
    """Common part as a share of the smaller range, 0..1."""
    return max(0.0, overlap(a, b)) / max(min(length(a), length(b)), 1e-9)


def gap(a: Thing, b: Thing) -> float:
    """Distance in metres between two footprints, 0 if they touch or overlap."""
    return math.hypot(max(0.0, -overlap(a.x, b.x)), max(0.0, -overlap(a.y, b.y)))


def find_facts(view: View) -> list[Fact]:
    """All facts about the visible objects, in a fixed order."""
    facts: list[Fact] = []
    for thing in view.things:
        facts += _of_one(thing, view)
    for a in view.things:
        for b in view.things:
            if a is not b:
                facts += _of_two(a, b, view)
    return [*facts, *_of_groups(view)]


def holds(view: View, fact: Fact) -> bool:
    """Whether a fact is true of the room."""
    return fact in set(find_facts(view))


def _of_one(t: Thing, view: View) -> Iterator[Fact]:
    """Relations to the room and its shell."""
    p, (width, depth, _) = t.placed, view.room
    floor, ceiling, wall = view.part("floor"), view.part("ceiling"), view.wall(p.wall)
    if t.support == "floor" and floor:
        yield Fact((t.id,), "on floor", (floor.id,))
    if t.support == "wall" and wall:
        yield Fact((t.id,), "on wall", (wall.id,))
    if t.support == "ceiling" and ceiling:
        yield Fact((t.id,), "hanging", (ceiling.id,))
    if t.support != "floor":
        return
    x, y = view.ground
    left, right, back, front = t.x[0] - x[0], x[1] - t.x[1], y[1] - t.y[1], t.y[0] - y[0]
    if wall and {"left": left, "right": right, "back": back}[p.wall] < 0.15:
        yield Fact((t.id,), "against", (wall.id,))
    small = length(t.x) < 0.45 * width and length(t.y) < 0.45 * depth
    if small and back < 0.5 and min(left, right) < 0.5:
        yield Fact((t.id,), "corner", ())
    elif min(left, right) > 0.28 * width and min(back, front) > 0.28 * depth:
        yield Fact((t.id,), "middle", ())


def _of_two(a: Thing, b: Thing, view: View) -> Iterator[Fact]:
    """Relations of `a` to `b`."""
    if a.parent == b.id:
        relation = {"in": "in", "wall": "draped"}.get(a.support, "on")
        yield Fact((a.id,), relation, (b.id,))
        return
    if b.parent == a.id:  # a bed is not said to be below its pillow
        return
    if b.label in FLAT:
        if a.rug == b.id:
            yield Fact((a.id,), "on rug", (b.id,))
        return
    if a.label in FLAT:
        if b.label in STANDS_OVER and common(a.x, b.x) > 0.6 and common(a.y, b.y) > 0.6:
            yield Fact((a.id,), "under", (b.id,))
        elif b.support == "floor" and _before(a, b) and -overlap(a.depth, b.depth) < 0.8:
            yield Fact((a.id,), "front", (b.id,))
        return
    if b.label == "bed" and a.support == "floor" and _at_foot(a, b):
        yield Fact((a.id,), "foot", (b.id,))
    yield from _heights(a, b)
    yield from _sides(a, b)
    yield from _nearness(a, b, view)


def _at_foot(a: Thing, bed: Thing) -> bool:
    """Whether `a` is just beyond the end of a bed; the head of a bed that is not turned is at +y."""
    angle = math.radians(bed.placed.turn)
    fx, fy = math.sin(angle), -math.cos(angle)
    (ax, ay), (bx, by) = a.middle, bed.middle
    along, aside = (ax - bx) * fx + (ay - by) * fy, abs((ax - bx) * fy - (ay - by) * fx)
    long, wide = (length(bed.y), length(bed.x)) if abs(fy) > abs(fx) else (length(bed.x), length(bed.y))
    return long / 2 < along < long / 2 + 1.0 and aside < wide / 2 and gap(a, bed) < 0.7


def _heights(a: Thing, b: Thing) -> Iterator[Fact]:
    over = common(a.x, b.x) > 0.6 and common(a.y, b.y) > 0.6
    if a.label == "curtains":
        return  # located by their window instead
    if a.support == "wall" and a.placed.wall == b.placed.wall and a.z[0] > b.z[1] - 0.02:
        along = (a.x, b.x) if a.placed.wall == "back" else (a.y, b.y)
        if common(*along) > 0.6 and a.z[0] - b.z[1] < 1.3 and b.support in ("floor", "wall"):
            yield Fact((a.id,), "above", (b.id,))
    elif a.support == "ceiling" and over and a.z[0] > b.z[1] and b.support == "floor":
        yield Fact((a.id,), "above", (b.id,))
    if b.support == "wall" and a.placed.wall == b.placed.wall and b.z[0] > a.z[1] - 0.02:
        along = (a.x, b.x) if a.placed.wall == "back" else (a.y, b.y)
        if common(*along) > 0.6 and b.z[0] - a.z[1] < 1.3 and a.support in ("floor", "wall"):
            yield Fact((a.id,), "below", (b.id,))
    if a.support == "floor" and b.support == "floor" and a.z[1] < b.z[1] - 0.05 and over:
        yield Fact((a.id,), "under", (b.id,))


def _before(a: Thing, b: Thing) -> bool:
    """Whether `a` is between the viewer and `b`: nearer, and before it in the image."""
    nearer = (b.depth[0] + b.depth[1] - a.depth[0] - a.depth[1]) / 2
    return (
        nearer > 0.35
        and overlap(a.depth, b.depth) < 0.25 * min(length(a.depth), length(b.depth))
        and common(a.u, b.u) > 0.5
        and common(a.side, b.side) > 0.4
    )


def _sides(a: Thing, b: Thing) -> Iterator[Fact]:
    """Left, right, in front of and behind, for objects beside each other."""
    if a.support != b.support or a.parent != b.parent:
        if not (a.support == "floor" and b.support == "wall"):
            return
        # A thing on the floor in front of a window or door.
        if b.label in ("window", "door") and _before(a, b) and -overlap(a.depth, b.depth) < 1.0:
            yield Fact((a.id,), "front", (b.id,))
        return
    if a.support == "wall" and a.placed.wall != b.placed.wall:
        return
    apart = -overlap(a.side, b.side)
    if a.support == "wall" and a.placed.wall != "back":
        apart = -1.0  # seen edge-on, left and right would be nearer and farther
    level = overlap(a.depth, b.depth) > -0.4 and overlap(a.z, b.z) > 0
    if -0.05 < apart < 1.6 and level and overlap(a.u, b.u) < 0.2 * min(length(a.u), length(b.u)):
        yield Fact((a.id,), "left" if a.side[0] < b.side[0] else "right", (b.id,))
    if a.support == "floor":
        between = -overlap(a.depth, b.depth)
        if between < 1.2 and _before(a, b):
            yield Fact((a.id,), "front", (b.id,))
        elif between < 1.2 and _before(b, a):
            yield Fact((a.id,), "behind", (b.id,))


def _nearness(a: Thing, b: Thing, view: View) -> Iterator[Fact]:
    same_level = a.support == b.support and a.parent == b.parent
    standing = a.support == "floor" and b.support in ("floor", "wall") and b.z[0] < 1.2
    if a.support == "wall" and (b.support != "wall" or a.placed.wall != b.placed.wall):
        return
    if not (same_level or standing) or a.support == "ceiling":
        return
    between = gap(a, b)
    if a.support == "wall":
        between = math.hypot(between, max(0.0, -overlap(a.z, b.z)))
    small = a.support in ("on", "in")
    if between < (0.25 if small else 0.4) and overlap(a.z, b.z) > -0.05:
        if not (common(a.x, b.x) > 0.8 and common(a.y, b.y) > 0.8):
            yield Fact((a.id,), "next to", (b.id,))
    elif between < 0.9 and not small:
        yield Fact((a.id,), "near", (b.id,))
    elif between > 0.55 * math.hypot(view.room[0], view.room[1]):
        yield Fact((a.id,), "far", (b.id,))
    walls = {a.placed.wall, b.placed.wall}
    facing = a.support == b.support == "floor" and walls == {"left", "right"}
    if facing and common(a.y, b.y) > 0.5 and between > 1.0:
        yield Fact((a.id,), "across", (b.id,))


def _of_groups(view: View) -> Iterator[Fact]:
    """Several objects of a kind: on the same object, around a table, on both sides; one between two."""
    by_label: dict[str, list[Thing]] = defaultdict(list)
    for thing in view.things:
        by_label[thing.label].append(thing)
    groups = [group for group in by_label.values() if len(group) > 1]
    for group in groups:
        ids = tuple(t.id for t in group)
        for name in ("on", "in"):
            parents = {t.parent for t in group if t.support == name}
            if len(parents) == 1 and all(t.support == name for t in group):
                (parent,) = parents
                if parent in view.by_id:
                    yield Fact(ids, name, (parent,))
        walls = {t.placed.wall for t in group if t.support == "wall"}
        if len(walls) == 1 and all(t.support == "wall" for t in group):
            wall = view.wall(next(iter(walls)))
            if wall:
                yield Fact(ids, "on wall", (wall.id,))
        if all(t.support == "floor" for t in group):
            for landmark in view.things:
                if landmark.support == "floor" and landmark.label not in (group[0].label, *FLAT):
                    yield from _around(group, landmark)
    for a, b in (group for group in groups if len(group) == 2):
        yield from _between(view, a, b)


def _around(group: list[Thing], b: Thing) -> Iterator[Fact]:
    ids = tuple(t.id for t in group)
    if all(gap(t, b) < 0.6 for t in group):
        quarters = {_quarter(t, b) for t in group}
        if b.label in ("table", "coffee table", "desk") and len(quarters) > 1:
            yield Fact(ids, "around", (b.id,))
        elif len(group) == 2 and quarters in ({"left", "right"}, {"front", "behind"}):
            yield Fact(ids, "each side", (b.id,))


def _quarter(a: Thing, b: Thing) -> str:
    """On which side of b's footprint a's centre lies, in the room's axes scaled by b's size."""
    (ax, ay), (bx, by) = a.middle, b.middle
    dx, dy = (ax - bx) / max(length(b.x), 1e-9), (ay - by) / max(length(b.y), 1e-9)
    if abs(dx) > abs(dy):
        return "right" if dx > 0 else "left"
    return "behind" if dy > 0 else "front"


def _between(view: View, a: Thing, b: Thing) -> Iterator[Fact]:
    """A thing between two of a kind: near the middle of the line from one to the other."""
    for t in view.things:
        if t.label == a.label or t.label in FLAT or t.support != a.support:
            continue
        if t.support == "wall" and not t.placed.wall == a.placed.wall == b.placed.wall:
            continue
        if t.parent != a.parent or a.parent != b.parent:
            continue
        (ax, ay), (bx, by), (tx, ty) = a.middle, b.middle, t.middle
        span = math.hypot(bx - ax, by - ay)
        if not 0.3 < span < 3.5:
            continue
        along = ((tx - ax) * (bx - ax) + (ty - ay) * (by - ay)) / span**2
        aside = abs((tx - ax) * (by - ay) - (ty - ay) * (bx - ax)) / span
        if 0.3 < along < 0.7 and aside < 0.35 and overlap(t.z, a.z) > 0:
            yield Fact((t.id,), "between", (a.id, b.id))
