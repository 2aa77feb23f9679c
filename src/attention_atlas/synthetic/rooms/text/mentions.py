"""First mentions of objects, with their contents or position, and the corresponding verbs."""

from __future__ import annotations

from collections.abc import Sequence

from attention_atlas.synthetic.rooms.text.facts import Fact
from attention_atlas.synthetic.rooms.text.teller import CHAIN, Teller
from attention_atlas.synthetic.rooms.text.things import Thing
from attention_atlas.synthetic.rooms.text.tree import Claim, Node, phrase


def be(node: Node) -> str:
    return "are" if node.plural else "is"


def participle(teller: Teller, thing: Thing, fact: Fact) -> str:
    """'hanging', 'sitting', ... before a preposition, now and then."""
    support = thing.support
    if fact.relation == "hanging":
        return "hanging"
    if support == "wall" and fact.relation in ("on wall", "above"):
        return "hanging" if teller.chance(0.45) and thing.label not in ("window", "door", "shelf") else ""
    upright = support in ("floor", "on") and thing.label not in ("rug", "pillow", "books")
    if upright and fact.relation in ("on", "under", "on floor", "against") and teller.chance(0.3):
        return teller.pick(("sitting", "standing", "sitting"))
    return ""


def verb(teller: Teller, thing: Thing, plural: bool, fact: Fact) -> str:
    """A verb of place that matches the support of an object."""
    support = thing.support
    if support in ("wall", "ceiling") and thing.label not in ("window", "door", "shelf"):
        options: tuple[str, ...] = ("hang", "be", "be")
    elif thing.label in ("rug", "pillow", "books"):
        options = ("lie", "be", "be")
    elif support in ("on", "floor"):
        options = ("stand", "sit", "be", "be", "be")
    else:
        options = ("be", "be", "be")
    word = "hang" if fact.relation == "hanging" else teller.pick(options)
    if word == "be":
        return "are" if plural else "is"
    return word if plural else word + "s"


def with_children(teller: Teller, things: Sequence[Thing], node: Node) -> Node | None:
    """'a bed with two pillows': what lies on a thing, or is in it."""
    children = child_groups(teller, things)
    if len(things) != 1 or not children:
        return None
    group = teller.pick(children)
    inner = teller.some(group, 0.8)
    teller.covered.update(t.id for t in group)
    others = [g for g in children if g is not group]
    if others and teller.chance(0.4):
        more = teller.pick(others)
        second = teller.some(more, 0.8)
        teller.covered.update(t.id for t in more)
        both = (*inner.objects, *second.objects)
        inner = phrase(inner, " and ", second, objects=both, kind="group", plural=True)
    return Node([node, " with ", inner], node.objects, node.kind, node.plural, node)


def child_groups(teller: Teller, things: Sequence[Thing]) -> list[list[Thing]]:
    """The objects on or in a single object, by kind, if not mentioned before."""
    if len(things) != 1:
        return []
    groups: dict[str, list[Thing]] = {}
    for t in teller.view.things:
        if t.parent == things[0].id and t.support in ("on", "in") and t.id not in teller.covered:
            groups.setdefault(t.label, []).append(t)
    return list(groups.values())


def first_mention(
    teller: Teller, things: Sequence[Thing], claims: list[Claim], fact: float, chain: float = CHAIN
) -> Node:
    """'a red lamp on the table', 'a bed with two pillows', 'a lamp with a red shade', 'three chairs'."""
    if len(things) == 1 and teller.chance(0.2):
        part = teller.with_part(things[0])
        if part is not None:
            return part
    node = teller.some(things)
    if teller.chance(fact):
        chosen = teller.choose_fact(things)
        if chosen is not None:
            located, claim = teller.located(node, chosen, participle(teller, things[0], chosen), chain)
            claims.append(claim)
            return located
    if teller.chance(0.5):
        return with_children(teller, things, node) or node
    return node
