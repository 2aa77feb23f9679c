"""Sentences about new objects: one maker per form, chosen by weight.

A maker takes the teller and the objects of the sentence (one, or all visible ones of a kind) and returns a
sentence, or None if the form does not apply. To add a form, write a maker with `@form(weight)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attention_atlas.synthetic.rooms.text.facts import Fact
from attention_atlas.synthetic.rooms.text.mentions import be, child_groups, first_mention, participle, verb
from attention_atlas.synthetic.rooms.text.teller import Teller, locate
from attention_atlas.synthetic.rooms.text.things import Thing
from attention_atlas.synthetic.rooms.text.tree import Claim, Node, Sentence, phrase

Maker = Callable[[Teller, Sequence[Thing]], Sentence | None]
FORMS: list[tuple[float, Maker]] = []
AGAIN: list[tuple[float, Maker]] = []  # forms that also suit objects mentioned before
APART = ("corner", "middle", "against", "far", "near", "on floor")  # rarely said of two objects at once
CENTRE = (0.36, 0.64)  # of the image's width


def form(weight: float, again: bool = False) -> Callable[[Maker], Maker]:
    """Register a maker; `again`: it also suits objects mentioned before."""

    def register(maker: Maker) -> Maker:
        FORMS.append((weight, maker))
        if again:
            AGAIN.append((weight, maker))
        return maker

    return register


@form(4.3)
def there_is(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'There is a lamp on the table.'"""
    claims: list[Claim] = []
    node = first_mention(teller, things, claims, 0.66)
    also = "also " if teller.covered and teller.chance(0.36) else ""
    tail: list[str | Node] = []
    if not claims and teller.chance(0.15):
        place, claim = locate(node, "in", teller.this_room(), "region")
        tail, claims = [" ", place], [claim]
    return Sentence([f"there {be(node)} {also}", node, *tail], claims)


@form(0.5)
def there_is_that(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'There is a lamp that is on the table.'"""
    fact = teller.choose_fact(things)
    if fact is None:
        return None
    node = teller.some(things)
    place, claim = teller.place(node, fact)
    that = phrase("that", objects=node.objects, kind="pronoun")
    link = f" {be(node)} {participle(teller, things[0], fact)}".rstrip() + " "
    whole = Node([node, " ", that, link, place], node.objects, node.kind, node.plural, node)
    return Sentence([f"there {be(node)} ", whole], [claim])


@form(1.7, again=True)
def subject_first(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'A painting hangs above the bed.'"""
    fact = teller.choose_fact(things)
    if fact is None:
        return None
    known = all(t.id in teller.mentioned for t in things)
    definite = teller.those(things) if known or teller.chance(0.55) else None
    if known and definite is None:
        return None
    node = definite or teller.some(things)
    word = verb(teller, things[0], node.plural, fact)
    place, claim = teller.place(node, fact)
    return Sentence([node, f" {word} ", place], [claim])


@form(0.7)
def place_first(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'On the table there is a lamp.'"""
    fact = teller.choose_fact(things)
    if fact is None or fact.relation in ("far", "near", "hanging"):
        return None
    target = teller.some(things)
    place, claim = teller.place(target, fact, chain=0.0)
    there = teller.pick((" there", ", there", ""))
    return Sentence([place, f"{there} {be(target)} ", target], [claim])


@form(1.1)
def in_the_image(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'On the left there is a lamp.'"""
    centre = sum(t.u[0] + t.u[1] for t in things) / (2 * len(things))
    spread = max(t.u[1] for t in things) - min(t.u[0] for t in things)
    if CENTRE[0] < centre < CENTRE[1] or spread > 0.6:
        return None
    side = "left" if centre < CENTRE[0] else "right"
    claims: list[Claim] = []
    node = first_mention(teller, things, claims, 0.15)
    if teller.chance(0.35):
        whole = phrase(teller.pick(("the room", "the picture", "the image", "the photo")), kind="abstract")
        words = teller.pick(
            (f"on the {side} side of", f"on the {side} side of", f"to the {side} of", f"on the {side} of")
        )
        place, claim = locate(node, words, whole, "direction")
        claims.append(claim)
    else:
        words = teller.pick((f"the {side}", f"the {side} side"))
        place = Node(
            [teller.pick(("on ", "to ")) if words.endswith(side) else "on ", phrase(words, kind="abstract")]
        )
    # "a lamp on the table on the left" would leave open what is on the left.
    if teller.chance(0.5) or node.core is not None:
        return Sentence([place, f" there {be(node)} ", node], claims)
    return Sentence([f"there {be(node)} ", node, " ", place], claims)


@form(0.5)
def you_see(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'You can see a lamp on the table.'"""
    who = phrase(teller.pick(("you", "you", "I")), kind="pronoun")
    how = teller.pick((" can see ", " can also see ", " see "))
    if who.items[0] == "you" and teller.chance(0.3):
        how = " will see "
    claims: list[Claim] = []
    return Sentence([who, how, first_mention(teller, things, claims, 0.6)], claims)


@form(0.9, again=True)
def the_thing_has(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'The bed has two pillows on it.'"""
    children = child_groups(teller, things)
    owner = teller.those(things) if children else None
    if owner is None:
        return None
    group = teller.pick(children)
    inner = teller.some(group)
    teller.covered.update(t.id for t in group)
    fact = Fact(tuple(t.id for t in group), group[0].support, (things[0].id,))
    if not teller.chance(0.7):
        return Sentence([owner, " has ", inner])
    place, claim = teller.place(inner, fact, teller.pronoun(things, subject=False))
    return Sentence([owner, " has ", inner, " ", place], [claim])


@form(1.35)
def two_things(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'There is a lamp and a plant next to the sofa.'"""
    others = [t for t in teller.view.things if t.id not in teller.covered and t.label != things[0].label]
    if not others:
        return None
    other = teller.weighted(others, [t.salience for t in others])
    claims: list[Claim] = []
    first = teller.some(things)
    shared = _shared(teller, things, other)
    second = first_mention(teller, [other], claims, 0.0 if shared else 0.35, chain=0.0)
    teller.covered.add(other.id)
    both = phrase(
        first, " and ", second, objects=(*first.objects, *second.objects), kind="group", plural=True
    )
    if shared:
        place, claim = teller.place(both, shared, chain=0.0)
        claims.append(claim)
        both = Node([both, " ", place], both.objects, "group", True, both)
    if teller.chance(0.3):
        return Sentence([teller.room(), " has ", both], claims, focused=False)
    return Sentence([f"there {be(first)} ", both], claims, focused=False)


def _shared(teller: Teller, things: Sequence[Thing], other: Thing) -> Fact | None:
    """Facts that are true both of the objects and of the other one, as facts about all of them."""
    stated = {(f.relation, f.landmarks) for f in teller.facts_of([other])}
    facts = [
        f for f in teller.facts_of(things) if (f.relation, f.landmarks) in stated and f.relation not in APART
    ]
    if not facts or not teller.chance(0.75):
        return None
    fact = teller.weighted(facts, [teller.interest(f) for f in facts])
    return Fact((*fact.targets, other.id), fact.relation, fact.landmarks)


@form(1.1, again=True)
def looks(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'The sofa is red.'"""
    look = [
        w for w in ((things[0].color, things[0].pattern, things[0].material) if len(things) == 1 else ()) if w
    ]
    if len(things) > 1:
        colors = {t.color for t in things}
        look = [c for c in colors if c] if len(colors) == 1 else []
    if not look or things[0].label in ("plant", "books"):
        return None
    node = teller.those(things)
    if node is None or set(look) & set(str(node.items[0]).split()):
        return None  # "the red sofa is red"
    teller.described.update(t.id for t in things)
    if things[0].material == "wooden" and len(things) == 1 and teller.chance(0.4):
        return Sentence([node, f" {be(node)} made of ", phrase("wood", kind="abstract")])
    text = look[0] if len(look) == 1 or teller.chance(0.6) else f"{look[0]} and {look[1]}"
    return Sentence([node, f" {be(node)} {text}"])


@form(0.8)
def the_room_has(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'The room has a sofa in front of the window.'"""
    claims: list[Claim] = []
    return Sentence([teller.room(), " has ", first_mention(teller, things, claims, 0.5)], claims)


@form(0.35)
def fragment(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'A red lamp on the table.'"""
    claims: list[Claim] = []
    return Sentence([first_mention(teller, things, claims, 0.8)], claims, clause=False)


@form(12.0, again=True)
def says(teller: Teller, things: Sequence[Thing]) -> Sentence | None:
    """'There is a red sign that says "OPEN" on the wall.'"""
    if len(things) != 1 or not things[0].placed.text:
        return None
    words = things[0].placed.text
    if teller.chance(0.3):
        node = teller.the(things[0])
        if node is not None:
            return Sentence([node, f' says "{words}"'])
    flat = teller.a(things[0])
    inscription = teller.pick(
        (f' that says "{words}"', f' with the word "{words}" on it', f' saying "{words}"')
    )
    if "on it" in inscription:
        it = teller.pronoun(things, subject=False)
        head = f' with the words "{words}"' if " " in words else f' with the word "{words}"'
        on = Node([" on "])
        return Sentence(["there is ", Node([flat, head, on, it], flat.objects, "object", False, flat)])
    node = Node([flat, inscription], flat.objects, "object", False, flat)
    fact = next((f for f in teller.facts_of(things) if f.relation in ("on wall", "above")), None)
    if fact is None or not teller.chance(0.6):
        return Sentence(["there is ", node])
    place, claim = teller.place(node, fact)
    return Sentence(["there is ", node, " ", place], [claim])
