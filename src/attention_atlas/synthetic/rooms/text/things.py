"""The visible objects of a plan, measured from the camera."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from attention_atlas.data.corpus import SceneObject
from attention_atlas.synthetic.rooms.kinds import KINDS
from attention_atlas.synthetic.rooms.plan import Placed, Plan
from attention_atlas.synthetic.rooms.text.lexicon import LOW_SALIENCE, names_of

SHELL = ("wall", "floor", "ceiling")
MIN_AREA = 0.0012  # minimum fraction of the image of an object that people mention
MAX_OCCLUSION = 0.75
Range = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Thing:
    """One visible object. Ranges in metres: x, y, z in the room; side (to the viewer's right) and depth (away
    from the viewer) along the camera's axes. `u` is its horizontal range in the image, 0..1."""

    id: int
    label: str
    placed: Placed
    x: Range
    y: Range
    z: Range
    side: Range
    depth: Range
    u: Range
    share: float  # of the image's pixels
    salience: float
    names: tuple[str, ...]  # the first is the usual one
    plural: bool
    color: str
    pattern: str
    material: str
    size: str
    shape: str
    # Its support, as people see it: an object on a rug is on the floor, and on the rug.
    support: str
    parent: int
    rug: int

    @property
    def shell(self) -> bool:
        return self.label in SHELL

    @property
    def middle(self) -> tuple[float, float]:
        return (self.x[0] + self.x[1]) / 2, (self.y[0] + self.y[1]) / 2

    @property
    def look(self) -> tuple[str, ...]:
        """All words for its appearance."""
        return tuple(w for w in (self.size, self.shape, self.color, self.pattern, self.material) if w)


@dataclass(frozen=True, eq=False)
class View:
    """The visible objects of a room, the most salient first, without walls, floor and ceiling."""

    category: str
    room: tuple[float, float, float]
    ground: tuple[Range, Range]  # x and y of the floor
    things: tuple[Thing, ...]
    shell: tuple[Thing, ...]
    by_id: dict[int, Thing] = field(default_factory=dict)

    def named(self, name: str) -> list[Thing]:
        """Objects that could be called `name`."""
        return [t for t in self.things if name in t.names]

    def same(self, thing: Thing) -> list[Thing]:
        """All objects of the same label, the most salient first."""
        return [t for t in self.things if t.label == thing.label]

    def wall(self, name: str) -> Thing | None:
        return next((t for t in self.shell if t.label == "wall" and t.placed.wall == name), None)

    def part(self, label: str) -> Thing | None:
        """The floor, the ceiling, or the wall that fills most of the image."""
        found = [t for t in self.shell if t.label == label]
        return max(found, key=lambda t: (t.share, -t.id)) if found else None


def look_at(plan: Plan, objects: Sequence[SceneObject]) -> View:
    """The view of a plan through its camera. `objects` are the corpus's: boxes, visible areas in pixels."""
    placed = {p.id: p for p in plan.objects}
    # Walls, floor and ceiling extend to the edges of the image, so the boxes give its size.
    size = max((max(o.box[2], o.box[3]) for o in objects), default=1.0)
    eye, target = plan.camera.eye, plan.camera.target
    fx, fy = target[0] - eye[0], target[1] - eye[1]
    length = math.hypot(fx, fy) or 1.0
    fx, fy = fx / length, fy / length
    things = []
    for seen in objects:
        p = placed.get(seen.id)
        if p is None or seen.area <= 0:
            continue
        share = seen.area / (size * size)
        if p.label not in SHELL and (share < MIN_AREA or seen.occlusion > MAX_OCCLUSION):
            continue
        rug = p.parent if p.parent in placed and placed[p.parent].label == "rug" else -1
        things.append(_thing(p, seen, rug, share, size, (fx, fy), eye))
    things.sort(key=lambda t: (-t.salience, t.id))
    return View(
        category=plan.category.replace("_", " "),
        room=plan.size,
        ground=_ground(plan),
        things=tuple(t for t in things if not t.shell),
        shell=tuple(t for t in things if t.shell),
        by_id={t.id: t for t in things},
    )


def _ground(plan: Plan) -> tuple[Range, Range]:
    """x and y of the floor; a plan without one is centred on x = 0 with its front at y = 0."""
    for p in plan.objects:
        if p.label == "floor":
            x, width = p.center[0], plan.size[0]
            back = p.center[1] + p.size[1] / 2  # the floor may extend behind the viewer
            return (x - width / 2, x + width / 2), (back - plan.size[1], back)
    return (-plan.size[0] / 2, plan.size[0] / 2), (0.0, plan.size[1])


def _thing(
    p: Placed,
    seen: SceneObject,
    rug: int,
    share: float,
    size: float,
    forward: tuple[float, float],
    eye: tuple[float, float, float],
) -> Thing:
    low = [c - s / 2 for c, s in zip(p.center, p.size)]
    high = [c + s / 2 for c, s in zip(p.center, p.size)]
    corners = [(x - eye[0], y - eye[1]) for x in (low[0], high[0]) for y in (low[1], high[1])]
    fx, fy = forward
    depths = [x * fx + y * fy for x, y in corners]
    sides = [x * fy - y * fx for x, y in corners]
    kind = KINDS.get(p.label)
    visible = set(seen.attributes)

    def shown(word: str) -> str:
        return word if word in visible else ""

    weight = kind.salience if kind else LOW_SALIENCE
    return Thing(
        id=p.id,
        label=p.label,
        placed=p,
        x=(low[0], high[0]),
        y=(low[1], high[1]),
        z=(low[2], high[2]),
        side=(min(sides), max(sides)),
        depth=(min(depths), max(depths)),
        u=(seen.box[0] / size, seen.box[2] / size),
        share=share,
        salience=weight * math.sqrt(share) * (1 - 0.5 * seen.occlusion),
        names=names_of(p.label, kind.words if kind else ()),
        plural=kind.plural if kind else False,
        color=shown(p.color),
        pattern=shown(p.pattern),
        material=shown(p.material),
        size=shown(p.size_word),
        shape=shown(p.shape),
        support="floor" if rug >= 0 else p.support,
        parent=-1 if rug >= 0 else p.parent,
        rug=rug,
    )
