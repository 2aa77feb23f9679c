"""The wording of captions: noun phrases, facts and lists about one room, with the objects they refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attention_atlas.data.corpus import Phrase, Relation
from attention_atlas.synthetic.rooms.text.facts import RELATION_WORDS, Fact, length
from attention_atlas.synthetic.rooms.text.lexicon import NUMBERS, plural_of, room_names
from attention_atlas.synthetic.rooms.text.things import Thing, View
from attention_atlas.synthetic.telling import Chooser, Telling, article

# Verbs to choose from when a thing does not get its usual one, by its support.
VERBS: dict[str, tuple[str, ...]] = {
    "floor": ("standing", "sitting", "placed"),
    "on": ("sitting", "resting", "placed"),
    "in": ("sitting", "placed"),
    "wall": ("hanging", "mounted"),
    "ceiling": ("hanging",),
}
LYING = ("rug", "books", "pillow")
# How often a thing gets a verb, and how often that is its usual one. Beam search keeps only words that
# annotators agree on: with several equally likely verbs, or none half of the time, it writes none.
DOING, USUAL = 0.9, 0.85
# Parts of the room, which get no verb.
STILL = ("door", "window", "curtains", "fireplace", "shelf")
SMALL_LOOKS = ("size", "shape", "color", "pattern", "material")
# Things whose name can follow the room's: "a kitchen table".
OF_ROOM = ("table", "chair", "cabinet", "counter", "sink", "mirror", "window", "door", "rug", "bed", "desk")
# Facts seldom worth a caption, or awkward as one.
UNSAID = ("far", "near", "on floor", "against", "hanging", "below", "left", "right", "middle")
# People mention the same few things of an image: the number of facts and kinds to choose from.
FACTS, LABELS = 5, 5
# Several things of a kind are counted together rather than described one by one: weights of the group and of
# one of its members, relative to a single thing.
SEVERAL, ONE_OF_SEVERAL = 2.0, 0.15
PLAIN = 0.35  # relative salience of parts of the room (windows, doors)


@dataclass
class Writer(Chooser):
    """One room and a random generator."""

    view: View
    facts: list[Fact]
    rng: np.random.Generator

    def phrase(self, things: Sequence[Thing], plain: bool = False) -> str:
        """A noun phrase for one thing or several of one label: "a small wooden table", "two red chairs"."""
        first = things[0]
        names = [
            n
            for n in first.names
            if not any(n in t.names for t in self.view.things if t.label != first.label)
        ]
        noun = (names or list(first.names))[0] if self.chance(0.85) else self.pick(names or list(first.names))
        looks = [] if plain else [getattr(first, slot) for slot in SMALL_LOOKS if self._same(things, slot)]
        keep = min(len(looks), int(self.rng.choice([0, 1, 2], p=[0.3, 0.55, 0.15])))
        chosen = sorted(self.rng.choice(len(looks), size=keep, replace=False).tolist()) if keep else []
        if keep == 1 and first.color in looks and self.chance(0.6):
            chosen = [looks.index(first.color)]  # what people name first
        adjectives = [looks[i] for i in chosen]
        if (
            first.label in OF_ROOM
            and " " not in self.view.category
            and not first.plural
            and self.chance(0.12)
        ):
            noun = f"{self.view.category} {noun}"
        rest = " ".join([*adjectives, noun])
        if len(things) > 1:
            plural = " ".join([*adjectives, noun if first.plural else plural_of(noun)])
            count = NUMBERS[len(things)] if len(things) < len(NUMBERS) else "several"
            return plural if first.plural and self.chance(0.5) else f"{count} {plural}"
        if first.plural:
            return f"some {rest}" if self.chance(0.6) else rest
        return f"{article(rest)} {rest}"

    @staticmethod
    def _same(things: Sequence[Thing], slot: str) -> bool:
        values = {getattr(t, slot) for t in things}
        return len(values) == 1 and values != {""}

    def verb(self, thing: Thing) -> str:
        """The verb for a thing: its usual one, another, or "" for none."""
        if thing.label in STILL or not self.chance(DOING):
            return ""
        return usual_verb(thing) if self.chance(USUAL) else self.pick(VERBS.get(thing.support, ("",)))

    def things_of(self, ids: Sequence[int]) -> list[Thing]:
        return [self.view.by_id[i] for i in ids]

    def fact(self, among: Sequence[Fact] | None = None) -> Fact | None:
        """A fact worth mentioning; facts about salient things are more likely."""
        facts = list(self.facts if among is None else among)
        if not facts:
            return None
        weights = np.array([self.worth(f) for f in facts])
        if weights.sum() <= 0:
            return None
        return facts[int(self.rng.choice(len(facts), p=weights / weights.sum()))]

    def worth(self, fact: Fact) -> float:
        targets = max(salience(t) for t in self.things_of(fact.targets))
        landmarks = [salience(t) for t in self.things_of(fact.landmarks)]
        if fact.relation == "on wall" and len(fact.targets) == 1:
            return 0.0
        weight = fact.weight
        if len(fact.targets) > 1:
            weight *= SEVERAL
        elif len(self.view.same(self.view.by_id[fact.targets[0]])) > 1:
            weight *= ONE_OF_SEVERAL
        return weight * (targets + max(landmarks, default=0.05)) ** 2

    def tell(self, out: Telling, fact: Fact, target: tuple[int, int] | None = None) -> None:
        """Say "<target> <verb> <relation> <landmark>"; a target already named is given by its span."""
        targets, landmarks = self.things_of(fact.targets), self.things_of(fact.landmarks)
        if target is None:
            target = out.name(targets, self.phrase(targets))
        out.say(self.verb(targets[0]))
        relation = out.say(self.pick(RELATION_WORDS[fact.relation][2]))
        if landmarks:
            shell = landmarks[0].shell
            name = (
                f"{self.pick(('the', 'a' if landmarks[0].label == 'wall' else 'the'))} {landmarks[0].label}"
            )
            if not shell:
                name = self.phrase(landmarks)
                if name == out.text[target[0] : target[1]] and name.startswith(("a ", "an ")):
                    name = f"another {name.split(' ', 1)[1]}"
            landmark = out.name(landmarks, name)
        else:
            landmark = self.room(out, "the" if self.chance(0.4) else "")
        out.relations.append(
            Relation(target, relation, landmark, fact.type, list(fact.targets), list(fact.landmarks))
        )

    def room(self, out: Telling, start: str = "") -> tuple[int, int]:
        name = self.pick(room_names(self.view.category)) if self.chance(0.85) else "room"
        span = out.say(f"{start or article(name)} {name}")
        out.phrases.append(Phrase(*span, [], "abstract"))
        return span

    def salient(self, count: int) -> list[list[Thing]]:
        """Up to `count` kinds of things with all their members, drawn by salience."""
        by_label: dict[str, float] = {}
        for thing in self.view.things:
            looked_at = salience(thing) * (SEVERAL if len(self.view.same(thing)) > 1 else 1.0)
            by_label[thing.label] = max(by_label.get(thing.label, 0.0), looked_at)
        labels = sorted(by_label, key=lambda x: (-by_label[x], x))[:LABELS]
        weights = np.array([by_label[x] for x in labels]) ** 2
        count = min(count, len(labels))
        drawn = self.rng.choice(len(labels), size=count, replace=False, p=weights / weights.sum())
        # The most salient first, as people do.
        return [[t for t in self.view.things if t.label == labels[i]] for i in sorted(drawn)]

    def list_of(self, out: Telling, groups: Sequence[Sequence[Thing]]) -> None:
        for n, group in enumerate(groups):
            if n:
                out.say("and" if n == len(groups) - 1 else ",")
            out.name(group, self.phrase(group))


def salience(thing: Thing) -> float:
    return thing.salience * (PLAIN if thing.label in STILL else 1.0)


def usual_verb(thing: Thing) -> str:
    """The verb most people use for a thing, from its place and shape: hanging, lying, or standing if it is
    taller than wide, else sitting."""
    if thing.support in ("wall", "ceiling"):
        return "hanging"
    if thing.label in LYING:
        return "lying"
    return "standing" if length(thing.z) > max(length(thing.x), length(thing.y)) else "sitting"
