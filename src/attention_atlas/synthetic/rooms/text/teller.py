"""The state of a description: what has been said so far, and how objects are referred to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np

from attention_atlas.synthetic.rooms.text.facts import RELATION_WORDS, Fact, find_facts
from attention_atlas.synthetic.rooms.text.lexicon import NUMBERS, PARTS, plural_of
from attention_atlas.synthetic.rooms.text.things import Thing, View
from attention_atlas.synthetic.rooms.text.tree import Claim, Node, phrase
from attention_atlas.synthetic.telling import article

T = TypeVar("T")
# How often a visible attribute is mentioned.
MENTIONED = {"size": 0.3, "shape": 0.5, "color": 0.62, "pattern": 0.6, "material": 0.4}
PLAIN_COLOR = {"plant": 0.2, "tv": 0.25, "toilet": 0.4, "bathtub": 0.5, "basket": 0.3}
CHAIN = 0.2  # probability that a landmark is itself located
CHAINED = ("on", "in", "on rug", "left", "right", "front", "under")
VERY = 0.3  # probability of 'very large' for 'large'
MORE_THAN_FEW = 4  # from this number on, people sometimes stop counting


class Teller:
    """State of one description. All randomness comes from `rng`."""

    def __init__(self, view: View, rng: np.random.Generator) -> None:
        self.view = view
        self.rng = rng
        self.facts = find_facts(view)
        self.by_targets: dict[tuple[int, ...], list[Fact]] = {}
        for fact in self.facts:
            self.by_targets.setdefault(tuple(sorted(fact.targets)), []).append(fact)
        self.mentioned: set[int] = set()  # objects referred to
        self.covered: set[int] = set()  # objects with their own sentence
        self.described: set[int] = set()  # objects whose appearance was described
        self.further: list[Claim] = []  # of landmarks that are themselves located; read by `describe`
        self.details: list[object] = []  # makers of details.py used so far
        self.used: set[frozenset[int]] = set()  # pairs already related
        self.focus: tuple[Thing, ...] = ()  # referents of "it" or "they"
        self._nouns: dict[int, str] = {}

    # -- chance

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def weighted(self, options: Sequence[T], weights: Iterable[float]) -> T:
        sums = np.cumsum(list(weights))
        return options[
            min(int(np.searchsorted(sums, self.rng.random() * sums[-1], "right")), len(options) - 1)
        ]

    # -- words

    def noun(self, thing: Thing) -> str:
        """The name of an object throughout a text; if possible one that no other label shares."""
        if thing.id not in self._nouns:
            others = {n for t in self.view.things if t.label != thing.label for n in t.names}
            clear = [n for n in thing.names if n not in others] or [thing.label]
            name = clear[0] if self.chance(0.75) else self.pick(clear)
            for one in self.view.same(thing):
                self._nouns[one.id] = name
        return self._nouns[thing.id]

    def look(self, things: Sequence[Thing], share: float = 1.0, most: int = 2) -> list[str]:
        """Attributes that are true of all the objects, in English order."""
        words = []
        for aspect, chance in MENTIONED.items():
            values = {getattr(t, aspect) for t in things}
            (value,) = values if len(values) == 1 else ("",)
            if aspect == "color":
                chance = PLAIN_COLOR.get(things[0].label, chance)
            if value and self.chance(chance * share):
                words.append(value)
        while len(words) > most:
            words.pop(0 if self.chance(0.7) else len(words) - 1)
        if words:
            self.described.update(t.id for t in things)
        if words[:1] == [things[0].size] and words[0] and self.chance(VERY):
            words[0] = f"very {words[0]}"
        return words

    # -- noun phrases

    def a(self, thing: Thing, share: float = 1.0, one: bool = True) -> Node:
        """'a red lamp', 'some books', 'curtains'."""
        words = [*self.look([thing], share), self.noun(thing)]
        if thing.plural:
            words = [*self.weighted(((), ("some",), ("several",)), (0.55, 0.35, 0.1)), *words]
        else:
            words = ["one" if one and self.chance(0.06) else article(words[0]), *words]
        return self._node(words, [thing], thing.plural)

    def the(self, thing: Thing) -> Node | None:
        """'the lamp', 'the red lamp'; None if no words distinguish it from others of the same name."""
        name = self.noun(thing)
        rivals = [t for t in self.view.named(name) if t is not thing]
        words: list[str] = []
        if rivals:
            taken = {w for t in rivals for w in t.look}
            telling = [w for w in reversed(thing.look) if w not in taken]
            if telling:
                words = [telling[-1] if thing.color not in telling else thing.color]
            elif thing.id not in self.mentioned or any(t.id in self.mentioned for t in rivals):
                return None
        elif self.chance(0.3):
            words = self.look([thing], 0.5, 1)
        return self._node(["the", *words, name], [thing], thing.plural)

    def any(self, thing: Thing) -> Node:
        """A phrase for a landmark: definite if possible, else 'a ...' or 'one of the ...'."""
        sure = thing.id in self.mentioned or self.chance(0.75)
        node = self.the(thing) if sure else None
        if node is not None:
            return node
        same = self.view.same(thing)
        if len(same) > 1 and not thing.plural and self.chance(0.12):
            inner = self.the_group(same)
            self.mentioned.add(thing.id)
            return phrase("one of ", inner, objects=(thing.id,))
        return self.a(thing, 0.6, one=False)

    def group(self, things: Sequence[Thing], share: float = 1.0) -> Node:
        """'two white chairs', 'several books', 'chairs'."""
        n = len(things)
        words = [*self.look(things, share), self._plural(things[0])]
        if things[0].plural:
            count = self.weighted(("", "some", "several", "a lot of", "many"), (0.4, 0.3, 0.15, 0.1, 0.05))
        else:
            vague = 0.5 if n >= MORE_THAN_FEW else 0.15
            count = (
                NUMBERS[n]
                if n < len(NUMBERS) and not self.chance(vague)
                else self.pick(("", "some", "several"))
            )
            count = "some" if n == 2 and count == "several" else count
        return self._node([*([count] if count else []), *words], things, True)

    def the_group(self, things: Sequence[Thing]) -> Node:
        words = self.look(things, 0.3, 1)
        count = (
            [NUMBERS[len(things)]] if len(things) == 2 and self.chance(0.3) and not things[0].plural else []
        )
        return self._node(["the", *count, *words, self._plural(things[0])], things, True)

    def some(self, things: Sequence[Thing], share: float = 1.0) -> Node:
        """First mention of one object or of all of a kind."""
        return self.a(things[0], share) if len(things) == 1 else self.group(things, share)

    def those(self, things: Sequence[Thing]) -> Node | None:
        """A definite phrase for one object or for all of a kind."""
        return self.the(things[0]) if len(things) == 1 else self.the_group(things)

    def pronoun(self, things: Sequence[Thing], subject: bool = True) -> Node:
        plural = len(things) > 1 or things[0].plural
        word = ("they" if subject else "them") if plural else "it"
        return phrase(word, objects=(t.id for t in things), kind="pronoun", plural=plural)

    def with_part(self, thing: Thing) -> Node | None:
        """'a lamp with a red shade'."""
        if thing.label not in PARTS or not thing.color:
            return None
        name = self.noun(thing)
        flat = self._node([article(name), name], [thing], False)
        look = [w for w in (thing.color, thing.pattern) if w]
        part = self._node([article(look[0]), *look, self.pick(PARTS[thing.label])], [thing], False)
        self.described.add(thing.id)
        return Node([flat, " with ", part], (thing.id,), flat.kind, False, flat)

    def room(self) -> Node:
        return phrase("the room", kind="abstract")

    def this_room(self) -> Node:
        return phrase(self.pick(("the room", "this room", "the picture", "the image")), kind="abstract")

    def shell(self, thing: Thing) -> Node:
        """'the floor', 'the left wall', 'the blue wall'."""
        words = []
        if thing.label == "wall":
            if self.chance(0.35):
                words = [thing.placed.wall]
            elif self.chance(0.15):
                words = self.look([thing], 1.0, 1)
        elif thing.label == "floor" and self.chance(0.3):
            words = self.look([thing], 1.0, 1)
        return self._node(["the", *words, thing.label], [thing], False)

    def _plural(self, thing: Thing) -> str:
        return self.noun(thing) if thing.plural else plural_of(self.noun(thing))

    def _node(
        self, words: Sequence[str], things: Sequence[Thing], plural: bool, mention: bool = True
    ) -> Node:
        if mention:
            self.mentioned.update(t.id for t in things)
        kind = "object" if len(things) == 1 else "group"
        return phrase(" ".join(words), objects=[t.id for t in things], kind=kind, plural=plural)

    # -- relations

    def facts_of(self, things: Sequence[Thing]) -> list[Fact]:
        """Facts with exactly these objects as targets whose pairs have not been related before."""
        ids = tuple(sorted(t.id for t in things))
        return [f for f in self.by_targets.get(ids, []) if frozenset((*ids, *f.landmarks)) not in self.used]

    def choose_fact(self, things: Sequence[Thing]) -> Fact | None:
        facts = [f for f in self.facts_of(things) if self.interest(f) > 0]
        if not facts:
            return None
        return self.weighted(facts, [self.interest(f) for f in facts])

    def interest(self, fact: Fact) -> float:
        """The weight of a fact, by its relation and by how salient or known its landmark is."""
        weight = fact.weight
        if fact.relation == "on floor":
            extent = self.view.by_id[fact.targets[0]].placed.size
            return weight * (1.0 if max(extent) < 0.6 else 0.01)
        if fact.relation in ("on wall", "hanging", "against", "corner", "middle"):
            return weight
        landmark = self.view.by_id[fact.landmarks[0]]
        if landmark.label == self.view.by_id[fact.targets[0]].label:
            return 0.0  # "a chair next to a chair" is ambiguous
        known = 1.6 if landmark.id in self.mentioned else 1.0
        return weight * known * min(1.0, landmark.salience * 3.0)

    def landmark(self, fact: Fact) -> Node:
        things = [self.view.by_id[i] for i in fact.landmarks]
        if not things:
            return self.room()
        if things[0].shell:
            return self.shell(things[0])
        return self.any(things[0]) if len(things) == 1 else self.the_group(things)

    def place(
        self, target: Node, fact: Fact, landmark: Node | None = None, chain: float = CHAIN
    ) -> tuple[Node, Claim]:
        """'on the table', 'in the corner of the room': the statement of a fact about `target`, and its
        claim."""
        words = self.pick(RELATION_WORDS[fact.relation][2])
        self.used.add(frozenset((*fact.targets, *fact.landmarks)))
        further: list[Claim] = []
        if landmark is None:
            landmark = self.landmark(fact)
            if len(fact.landmarks) == 1 and self.chance(chain):
                landmark, further = self._chained(landmark, fact)
        place, claim = locate(target, words, landmark, fact.type)
        self.further += further
        return place, claim

    def _chained(self, landmark: Node, fact: Fact) -> tuple[Node, list[Claim]]:
        """'the table next to the bed': a landmark that is itself located."""
        thing = self.view.by_id[fact.landmarks[0]]
        shell = {t.id for t in self.view.shell}
        facts = [
            f for f in self.facts_of([thing]) if f.landmarks and not {*fact.targets, *shell} & {*f.landmarks}
        ]
        facts = [f for f in facts if f.relation in CHAINED and self.interest(f) > 0]
        if not facts:
            return landmark, []
        chosen = self.weighted(facts, [self.interest(f) for f in facts])
        node, claim = self.located(landmark, chosen, chain=0.0)
        return node, [claim]

    def located(self, target: Node, fact: Fact, verb: str = "", chain: float = CHAIN) -> tuple[Node, Claim]:
        """'a lamp on the table', 'a lamp standing on the table': a longer phrase for the same objects."""
        place, claim = self.place(target, fact, chain=chain)
        between = f" {verb} " if verb else " "
        return Node([target, between, place], target.objects, target.kind, target.plural, target), claim


def locate(target: Node, preposition: str, landmark: Node, type_: str) -> tuple[Node, Claim]:
    """Join a preposition and a landmark. A noun in the preposition ("in the corner of") heads its own
    phrase, which contains the landmark."""
    inner = re.fullmatch(r"(.*\b(?:in|on|at|to) )(the (?:\w+ )?\w+)( of)", preposition)
    if inner is None:
        words = Node([preposition])
        return Node([words, " ", landmark]), Claim(target, words, words, landmark, type_)
    first, last = Node([inner[1]]), Node([inner[3]])
    spot = phrase(inner[2], kind="abstract")
    whole = Node([spot, last, " ", landmark], (), "abstract", False, spot)
    return Node([first, whole]), Claim(target, first, last, landmark, type_)
