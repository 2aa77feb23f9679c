"""Sentences with further details or about the whole room; and vague or wrong ones."""

from __future__ import annotations

from collections.abc import Callable

from attention_atlas.synthetic.rooms.kinds import COLORS
from attention_atlas.synthetic.rooms.text.facts import Fact
from attention_atlas.synthetic.rooms.text.lexicon import LARGE_MISSES, PARTS, VAGUE_ON, absent_names
from attention_atlas.synthetic.rooms.text.mentions import be, child_groups
from attention_atlas.synthetic.rooms.text.teller import Teller, locate
from attention_atlas.synthetic.rooms.text.tree import Node, Sentence, phrase
from attention_atlas.synthetic.telling import article

TOPS = ("table", "coffee table", "desk", "cabinet", "dresser", "nightstand", "shelf", "stove", "bed")
MADE_OF = {"wooden": "wood", "tiled": "tiles", "brick": "bricks"}
Detail = Callable[[Teller], Sentence | None]


def more_of_it(teller: Teller) -> Sentence | None:
    """'It is next to the window.' 'There are two pillows on it.' 'It has a red shade.'"""
    if not teller.focus:
        return None
    things = teller.focus
    children = child_groups(teller, things)
    if children and teller.chance(0.6):
        group = teller.pick(children)
        inner = teller.some(group)
        teller.covered.update(t.id for t in group)
        fact = Fact(tuple(t.id for t in group), group[0].support, (things[0].id,))
        place, claim = teller.place(inner, fact, teller.pronoun(things, subject=False))
        if teller.chance(0.5):
            whole = Node([inner, " ", place], inner.objects, inner.kind, inner.plural, inner)
            return Sentence([f"there {be(inner)} ", whole], [claim])
        subject = teller.pronoun(things)
        has = " have " if subject.plural else " has "
        return Sentence([subject, has, inner, " ", place], [claim])
    thing = things[0]
    fresh = len(things) == 1 and thing.id not in teller.described
    if fresh and thing.label in PARTS and thing.color and teller.chance(0.6):
        look = [w for w in (thing.color, thing.pattern) if w]
        part = phrase(
            f"{article(look[0])} {' '.join(look)} {teller.pick(PARTS[thing.label])}", objects=(thing.id,)
        )
        teller.described.add(thing.id)
        return Sentence([teller.pronoun(things), " has ", part])
    if fresh and thing.look and teller.chance(0.6):
        teller.described.add(thing.id)
        subject = teller.pronoun(things)
        adjectives = teller.look([thing], 1.5) or [thing.look[-1]]
        return Sentence([subject, f" {be(subject)} {' and '.join(adjectives)}"])
    chosen = teller.choose_fact(things)
    if chosen is None:
        return None
    subject = teller.pronoun(things)
    place, claim = teller.place(subject, chosen)
    hang = " hanging " if chosen.relation == "hanging" else " "
    return Sentence([subject, f" {be(subject)}{hang}", place], [claim])


def surfaces(teller: Teller) -> Sentence | None:
    """'The walls are blue.' 'The room has white walls and a wooden floor.'"""
    walls = [t for t in teller.view.shell if t.label == "wall" and t.id not in teller.described]
    alike = [t for t in walls if t.look == walls[0].look] if walls else []
    floor, ceiling = teller.view.part("floor"), teller.view.part("ceiling")
    forms: list[Callable[[], tuple[Node, list[str]]]] = []
    if alike and alike[0].look:
        several = len({t.look for t in teller.view.shell if t.label == "wall"}) > 1
        one = f"{alike[0].placed.wall} wall" if several else "wall"
        name = "walls" if len(alike) > 1 else one
        forms.append(lambda: _surface(teller, [t.id for t in alike], name, alike[0].look, len(alike) > 1))
    if floor and floor.look and floor.id not in teller.described:
        forms.append(lambda: _surface(teller, [floor.id], "floor", floor.look, False))
    if ceiling and ceiling.look and ceiling.id not in teller.described and teller.chance(0.3):
        forms.append(lambda: _surface(teller, [ceiling.id], "ceiling", ceiling.look, False))
    if not forms:
        return None
    order = [forms[i] for i in teller.rng.permutation(len(forms))]
    two = len(order) > 1 and teller.chance(0.4)
    parts = [make() for make in order[: 2 if two else 1]]
    return _say_surfaces(teller, parts)


def _surface(
    teller: Teller, ids: list[int], name: str, look: tuple[str, ...], plural: bool
) -> tuple[Node, list[str]]:
    """The noun phrase without article, and words for its appearance."""
    teller.described.update(ids)
    teller.mentioned.update(ids)
    words = list(look)
    if len(words) > 1 and teller.chance(0.5):
        words = [teller.pick(words)]
    elif len(words) > 2:
        words.remove(teller.pick(words))
    kind = "group" if plural else "object"
    return phrase(name, objects=ids, kind=kind, plural=plural), words


def _say_surfaces(teller: Teller, parts: list[tuple[Node, list[str]]]) -> Sentence:
    if teller.chance(0.55):
        items: list[str | Node] = []
        for number, (node, look) in enumerate(parts):
            if number:
                items.append(" and ")
            items += _surface_is(teller, node, look)
        return Sentence(items)
    nodes = []
    for node, look in parts:
        before = "" if node.plural else f"{article(look[0])} "
        node.items = [f"{before}{' '.join(look)} {node.items[0]}"]
        nodes.append(node)
    inside: Node = nodes[0]
    if len(nodes) == 2:
        objects = (*nodes[0].objects, *nodes[1].objects)
        inside = phrase(nodes[0], " and ", nodes[1], objects=objects, kind="group", plural=True)
    if teller.chance(0.7):
        return Sentence([phrase(teller.pick(("the room", "this room")), kind="abstract"), " has ", inside])
    return Sentence([f"there {be(nodes[0])} ", inside])


def _surface_is(teller: Teller, node: Node, look: list[str]) -> list[str | Node]:
    """'the walls are blue', 'the walls of the room are painted blue', 'the color of the floor is gray'."""
    name = str(node.items[0])
    node.items = [f"the {name}"]
    word, colored = look[0], look[0] in COLORS and len(look) == 1
    if colored and teller.chance(0.12):
        color = phrase("the color", kind="abstract")
        return [Node([color, " of ", node], (), "abstract", False, color), f" is {word}"]
    painted = "painted " if name.endswith(("wall", "walls")) and colored and teller.chance(0.12) else ""
    predicate: str | Node = painted + " and ".join(look)
    if look[-1] in MADE_OF and teller.chance(0.5):
        predicate = Node(["made of ", phrase(MADE_OF[look[-1]], kind="abstract")])
    subject = node
    if teller.chance(0.25):
        subject = Node([node, " of ", teller.room()], node.objects, node.kind, node.plural, node)
    return [subject, f" {be(node)} ", predicate]


def vague(teller: Teller) -> Sentence | None:
    """'There are some things on the table.' 'There is a lot of furniture in the room.'"""
    owners = [t for t in teller.view.things if child_groups(teller, [t])]
    if owners and teller.chance(0.7):
        owner = teller.pick(owners)
        children = [t for group in child_groups(teller, [owner]) for t in group]
        landmark = teller.those([owner])
        if landmark is None:
            return None
        many = len(children) > 1
        words = teller.pick(VAGUE_ON[:-1]) if many else VAGUE_ON[-1]
        node = phrase(words, objects=(t.id for t in children), kind="vague", plural=many)
        preposition = "in" if children[0].support == "in" else "on"
        place, claim = locate(node, preposition, landmark, "region")
        teller.covered.update(t.id for t in children)
        teller.used.update(frozenset((t.id, owner.id)) for t in children)
        whole = Node([node, " ", place], node.objects, "vague", many, node)
        return Sentence([f"there {be(node)} ", whole], [claim])
    room = teller.room()
    what = teller.pick(("furniture", "things"))
    inner = phrase(what, kind="vague")
    if len(teller.view.things) < 9:
        node = phrase("not much furniture", kind="vague")
    else:
        node = phrase("a lot of ", inner, kind="vague")
    place, claim = locate(node, "in", room, "region")
    plural = what == "things" and node.items[0] == "a lot of "
    whole = Node([node, " ", place], (), "vague", plural, node)
    return Sentence([f"there {be(whole)} ", whole], [claim])


def miss(teller: Teller) -> Sentence | None:
    """An object that does not exist, as describers sometimes imagine: 'There is a candle on the table.'"""
    present = {n for t in teller.view.things for n in t.names}
    name = teller.pick([n for n in absent_names(teller.view.category) if n not in present])
    color = teller.pick(("white ", "black ", "", "", "small "))
    node = phrase(f"{article(color or name)} {color}{name}", kind="miss")
    holders = [t for t in teller.view.things if t.support == "floor" and t.label != "rug"]
    if holders and teller.chance(0.6):
        landmark_thing = teller.pick(holders[:4])
        landmark = teller.any(landmark_thing)
        words, type_ = "next to", "distance"
        if landmark_thing.label in TOPS and name not in LARGE_MISSES:
            words, type_ = "on", "region"
        place, claim = locate(node, words, landmark, type_)
        whole = Node([node, " ", place], (), "miss", False, node)
        return Sentence(["there is ", whole], [claim])
    return Sentence(["there is ", node])


def impression(teller: Teller) -> Sentence:
    """'The room looks clean.' 'It looks like a cozy room.'"""
    how = teller.pick(
        ("clean", "very clean", "cozy", "tidy", "bright", "comfortable", "modern", "nice", "full")
    )
    if how == "full":
        count = len(teller.view.things)
        how = "full" if count > 13 else "rather empty" if count < 8 else "lived in"
    subjects: tuple[str, ...] = ("the room", "this room", "the whole room")
    if how in ("clean", "very clean", "tidy"):
        subjects = (*subjects, "everything")
    room = phrase(teller.pick(subjects), kind="abstract")
    return Sentence([room, f" {teller.pick(('looks', 'looks', 'is'))} {how}"])
