"""All questions that can be asked about a room, with their true answers, from the visible objects.

Only questions that a person could answer: the object is large enough, the only one with its name, and clearly
on the left or right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from attention_atlas.data.corpus import SceneObject
from attention_atlas.synthetic.rooms.text.lexicon import plural_of
from attention_atlas.synthetic.rooms.text.things import Thing, View
from attention_atlas.synthetic.telling import article

LARGE = 0.008  # minimum fraction of the image of an object in a question
COUNTED = 0.004  # minimum fraction of each object to be counted
MARGIN = 0.12  # of the image's width between "left" and its middle
PURPOSES = {
    "kitchen": "to cook",
    "dining room": "to eat",
    "office": "to work",
    "library": "to read",
    "bathroom": "to wash",
    "bedroom": "to sleep",
    "nursery": "to play",
    "living room": "to relax",
    "hallway": "to enter",
}
# Found in rooms with different purposes.
WHY_THINGS = (
    "table",
    "chair",
    "rug",
    "cabinet",
    "armchair",
    "painting",
    "door",
    "desk",
    "bookshelf",
    "plant",
)
COUNTABLE = (
    "window",
    "chair",
    "painting",
    "armchair",
    "ceiling lamp",
    "bookshelf",
    "door",
    "laptop",
    "pillow",
)
# Objects whose presence is asked about.
_LOOKED_FOR = """
window rug painting ceiling_lamp chair door clock cabinet armchair table sign shelf plant sink bookshelf desk
curtains mirror floor_lamp sofa bed fridge chandelier bathtub crib dresser stove toilet
"""
GROUND = {"wooden": "wood", "carpeted": "carpet", "tiled": "tile"}
NEIGHBOURS = {
    "brown": ("orange", "beige"),
    "beige": ("white", "yellow"),
    "white": ("gray", "beige"),
    "gray": ("white", "black"),
    "black": ("gray", "blue"),
    "red": ("orange", "pink"),
    "orange": ("red", "yellow"),
    "yellow": ("orange", "beige"),
    "green": ("blue", "gray"),
    "blue": ("purple", "green"),
    "purple": ("pink", "blue"),
    "pink": ("red", "purple"),
}
SIDES = ("left", "right", "middle")
YES_NO = ("yes", "no")


@dataclass(frozen=True)
class Asked:
    """A question, its answer, the objects it names (by `phrase`), plausible wrong answers, other right
    answers, and its difficulty (0..1)."""

    text: str
    answer: str
    group: str
    phrase: str = ""
    objects: tuple[int, ...] = ()
    wrong: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    hard: float = 0.2


def questions(view: View, objects: Sequence[SceneObject]) -> Iterator[Asked]:
    """All questions about one image. `objects`: all that are visible, even slightly."""
    alone = [t for t in view.things if _alone(t, view)]
    present = {o.label for o in objects}
    yield from _of_room(view)
    yield from _of_ground(view)
    for thing in alone:
        yield from _colour(thing)
        yield from _place(thing, view)
    yield from _compared(alone)
    yield from _counts(view, objects)
    yield from _presence(view, present)


def _alone(thing: Thing, view: View) -> bool:
    name = thing.names[0]
    # Several things may be called a lamp or a table.
    others = [t for t in view.things if t is not thing and (name in t.names or name in t.label.split())]
    return thing.share >= LARGE and thing.label != "lamp" and not others


def _hard(share: float) -> float:
    return float(min(1.0, max(0.0, 1 - share / 0.05)))


def _yes(true: bool) -> str:
    return YES_NO[not true]


def _of_room(view: View) -> Iterator[Asked]:
    category = view.category
    others = tuple(c for c in PURPOSES if c != category)
    yield Asked("What room is this?", category, "what", wrong=others)
    yield Asked("Which room is this?", category, "which", wrong=others)
    for other in PURPOSES:
        name = f"{article(other)} {other}"
        yield Asked(f"Is this {name}?", _yes(other == category), "is", wrong=YES_NO)
    purpose = PURPOSES.get(category)
    if purpose is None:
        return
    wrong = tuple(p for p in PURPOSES.values() if p != purpose)
    yield Asked("Why do people use this room?", purpose, "why", wrong=wrong)
    yield Asked("Why would someone come here?", purpose, "why", wrong=wrong)
    for label in WHY_THINGS:
        found = [t for t in view.things if t.label == label]
        if len(found) == 1 and found[0].share >= LARGE:
            name = f"{article(label)} {label}"
            yield Asked(f"Why is there {name} here?", purpose, "why", name, (found[0].id,), wrong)


def _of_ground(view: View) -> Iterator[Asked]:
    floor = view.part("floor")
    walls = [t for t in view.shell if t.label == "wall"]
    overhead = [t for t in view.things if t.support == "ceiling"]
    if len(overhead) == 1 and overhead[0].share > COUNTED:
        one = overhead[0]
        at_ceiling = ("the ceiling", (one.id,), ("ceiling lamp", "chandelier"))
        yield Asked("What is hanging from the ceiling?", one.label, "what", *at_ceiling)
    if floor is not None and floor.share > 0.05:
        made = GROUND.get(floor.material)
        if made:
            wrong = tuple(m for m in GROUND.values() if m != made)
            at = ("the floor", (floor.id,), wrong)
            yield Asked("What is the floor made of?", made, "what", *at)
            yield Asked("Does the floor have carpet?", _yes(made == "carpet"), "does", *at[:2], YES_NO)
        if floor.color:
            yield _colour_of("the floor", floor.color, [floor])
    colours = {w.color for w in walls}
    if len(colours) == 1 and "" not in colours and sum(w.share for w in walls) > 0.08:
        colour = colours.pop()
        yield _colour_of("the wall", colour, walls)
        for other in NEIGHBOURS:
            ids = tuple(w.id for w in walls)
            yield Asked(f"Are the walls {other}?", _yes(colour == other), "are", "the walls", ids, YES_NO)


def _colour_of(phrase: str, colour: str, things: Sequence[Thing], plural: bool = False) -> Asked:
    verb = "are" if plural else "is"
    wrong = NEIGHBOURS.get(colour, ())
    also = ("grey",) if colour == "gray" else ()
    hard = _hard(sum(t.share for t in things))
    ids = tuple(t.id for t in things)
    return Asked(f"What color {verb} {phrase}?", colour, "what color", phrase, ids, wrong, also, hard)


def _colour(thing: Thing) -> Iterator[Asked]:
    if not thing.color:
        return
    phrase = f"the {thing.names[0]}"
    yield _colour_of(phrase, thing.color, [thing], thing.plural)
    verb, group = ("Are", "are") if thing.plural else ("Is", "is")
    for other in NEIGHBOURS:
        yield Asked(
            f"{verb} {phrase} {other}?",
            _yes(thing.color == other),
            group,
            phrase,
            (thing.id,),
            YES_NO,
            hard=_hard(thing.share),
        )


def _centre(thing: Thing) -> float:
    return (thing.u[0] + thing.u[1]) / 2


def _place(thing: Thing, view: View) -> Iterator[Asked]:
    if thing.u[1] - thing.u[0] > 0.6:
        return
    aside = _centre(thing) - 0.5
    phrase, ids, verb = f"the {thing.names[0]}", (thing.id,), "are" if thing.plural else "is"
    side = "left" if aside < -MARGIN else "right" if aside > MARGIN else ""
    hard = _hard(thing.share)
    place = side or ("middle" if abs(aside) < MARGIN / 2 else "")
    if place:
        wrong = tuple(s for s in SIDES if s != place)
        also = [f"on the {thing.support}"] if thing.support in ("wall", "floor") else []
        if thing.parent in view.by_id:
            also.append(f"on the {view.by_id[thing.parent].names[0]}")
        yield Asked(f"Where {verb} {phrase}?", place, "where", phrase, ids, wrong, tuple(also), hard)
    if side:
        other = ("right" if side == "left" else "left",)
        accepted = (f"{side} side",)
        yield Asked(f"Which side {verb} {phrase} on?", side, "which", phrase, ids, other, accepted, hard)
        for asked in ("left", "right"):
            text = f"{verb.capitalize()} {phrase} on the {asked}?"
            yield Asked(text, _yes(side == asked), verb, phrase, ids, YES_NO, hard=hard)


def _compared(alone: Sequence[Thing]) -> Iterator[Asked]:
    for a in alone:
        for b in alone:
            if a.names[0] < b.names[0] and abs(_centre(a) - _centre(b)) > 2 * MARGIN:
                first, second = (a, b) if _centre(a) < _centre(b) else (b, a)
                phrase = f"the {a.names[0]} or the {b.names[0]}"
                yield Asked(
                    f"Which is further left, {phrase}?",
                    first.names[0],
                    "which",
                    phrase,
                    (a.id, b.id),
                    (second.names[0],),
                    hard=_hard(min(a.share, b.share)),
                )


def _counts(view: View, objects: Sequence[SceneObject]) -> Iterator[Asked]:
    for label in COUNTABLE:
        seen = [t for t in view.things if t.label == label]
        if any(t.share < COUNTED for t in seen) or len(seen) != sum(o.label == label for o in objects):
            continue  # some are hardly visible, so people would disagree
        ids, number, many = tuple(t.id for t in seen), len(seen), plural_of(label)
        hard = 0.15 * min(number, 4) + 0.1
        wrong = tuple(str(n) for n in (number - 1, number + 1) if n >= 0)
        text = f"How many {many} are there?"
        yield Asked(text, str(number), "how many", many, ids, wrong, hard=hard)
        yield Asked(f"Are there any {many}?", _yes(number > 0), "are", many, ids, YES_NO)
        yield Asked(f"Are there two {many}?", _yes(number == 2), "are", f"two {many}", ids, YES_NO, hard=hard)


def _presence(view: View, present: set[str]) -> Iterator[Asked]:
    for label in (name.replace("_", " ") for name in _LOOKED_FOR.split()):
        seen = [t for t in view.things if t.label == label]
        if seen and max(t.share for t in seen) < LARGE:
            continue
        if not seen and label in present:
            continue
        name = label if label == "curtains" else f"{article(label)} {label}"
        ids, share = tuple(t.id for t in seen), sum(t.share for t in seen)
        at = (name, ids, YES_NO, (), _hard(share) / 2 if seen else 0.2)
        verb = ("Are", "are") if label == "curtains" else ("Is", "is")
        yield Asked(f"{verb[0]} there {name}?", _yes(bool(seen)), verb[1], *at)
        yield Asked(f"Does this room have {name}?", _yes(bool(seen)), "does", *at)
        if len({t.placed.wall for t in seen}) <= 1 and label in ("window", "door", "painting"):
            yield Asked(f"Does the wall have {name}?", _yes(bool(seen)), "does", *at)
