"""First sentences: the kind of room."""

from __future__ import annotations

from attention_atlas.synthetic.rooms.text.lexicon import room_names
from attention_atlas.synthetic.rooms.text.mentions import first_mention
from attention_atlas.synthetic.rooms.text.teller import Teller
from attention_atlas.synthetic.rooms.text.things import Thing
from attention_atlas.synthetic.rooms.text.tree import Claim, Node, Sentence, phrase
from attention_atlas.synthetic.telling import article

SMALL, LARGE = 14.0, 24.0  # square metres of floor


def opening(teller: Teller, leading: list[list[Thing]]) -> Sentence:
    """'This is a small bedroom with a bed and a window.' `leading`: what may be named along with it."""
    claims: list[Claim] = []
    words = [teller.pick(room_names(teller.view.category))]
    area = teller.view.room[0] * teller.view.room[1]
    if area < SMALL and teller.chance(0.4):
        words.insert(0, "small")
    elif area > LARGE and teller.chance(0.4):
        words.insert(0, teller.pick(("large", "large", "big", "spacious")))
    elif teller.chance(0.1):
        words.insert(0, teller.pick(("nice", "modern", "cozy", "simple")))
    room: Node = phrase(f"{article(words[0])} {' '.join(words)}", kind="abstract")
    wall = teller.view.wall("back")
    if wall and wall.look and teller.chance(0.12):
        look = teller.pick(wall.look)
        teller.described.update(t.id for t in teller.view.shell if t.label == "wall" and t.look == wall.look)
        alike = [t.id for t in teller.view.shell if t.label == "wall" and t.look == wall.look]
        walls = phrase(f"{look} walls", objects=alike, kind="group", plural=True)
        if len(alike) > 1:
            room = Node([room, " with ", walls], (), "abstract", False, room)
    elif leading and teller.chance(0.5):
        first = first_mention(teller, leading[0], claims, 0.25, chain=0.0)
        teller.covered.update(t.id for t in leading[0])
        inside = first
        if len(leading) > 1 and teller.chance(0.5):
            second = first_mention(teller, leading[1], claims, 0.1, chain=0.0)
            teller.covered.update(t.id for t in leading[1])
            both = (*first.objects, *second.objects)
            inside = phrase(first, " and ", second, objects=both, kind="group", plural=True)
        room = Node([room, " with ", inside], (), "abstract", False, room)
    return Sentence(_lead(teller, room), claims)


def _lead(teller: Teller, room: Node) -> list[str | Node]:
    image = teller.pick(("picture", "image", "photo", "picture"))
    kind = teller.weighted(range(8), (5, 2, 1.6, 1.2, 0.8, 0.5, 0.8, 0.8))
    if kind == 0:
        return [phrase("this", kind="pronoun"), " is ", room]
    if kind == 1:
        return [phrase("it", kind="pronoun"), " is ", room]
    if kind == 2:
        inner = phrase(f"{article(image)} {image}", kind="abstract")
        whole = Node([inner, " of ", room], (), "abstract", False, inner)
        return [phrase(teller.pick(("this", "it")), kind="pronoun"), " is ", whole]
    if kind == 3:
        shows = teller.pick((" shows ", " is of ", " is "))
        return [phrase(f"the {image}", kind="abstract"), shows, room]
    if kind == 4:
        return ["there is ", room]
    if kind == 5:
        return [phrase("I", kind="pronoun"), " see ", room]
    if kind == 6:
        return [phrase("this", kind="pronoun"), " looks like ", room]
    return [room]
