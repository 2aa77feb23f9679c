"""Five one-sentence captions per room, as people caption photographs: one salient thing or fact each, 16
words at most, no full stop. Every caption is true of the room; its phrases know which objects they mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attention_atlas.corpus import Example, Phrase, Relation, SceneObject, write_examples
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.language.words import words
from attention_atlas.worlds.rooms.plan import Plan
from attention_atlas.worlds.rooms.text.facts import RELATION_WORDS, Fact, find_facts
from attention_atlas.worlds.rooms.text.lexicon import NUMBERS, article, plural_of, room_names
from attention_atlas.worlds.rooms.text.things import Thing, View, look_at

TRIES = 60
# What things are said to do where they are, by what holds them. "" leaves the verb out.
VERBS: dict[str, tuple[str, ...]] = {
    "floor": ("", "", "standing", "sitting"),
    "on": ("", "sitting", "resting", "placed"),
    "in": ("", "sitting", "lying"),
    "wall": ("", "hanging", "mounted"),
    "ceiling": ("hanging",),
}
LYING = ("rug", "books", "pillow")
# Parts of the room do nothing.
STILL = ("door", "window", "curtains", "fireplace", "shelf")
SMALL_LOOKS = ("size", "shape", "color", "pattern", "material")
# Things one can say a room's name before: "a kitchen table".
OF_ROOM = ("table", "chair", "cabinet", "counter", "sink", "mirror", "window", "door", "rug", "bed", "desk")
# Facts seldom worth a caption, or awkward as one.
UNSAID = ("far", "near", "on floor", "on wall", "against", "hanging", "below", "left", "right", "middle")
# People caption the same few things of a picture: so many facts and kinds of things are up for choice.
FACTS, LABELS = 8, 6
PLAIN = 0.35  # how much less a part of the room (a window, a door) is looked at


class Telling:
    """A caption being written: text with the phrases and relations found so far."""

    def __init__(self) -> None:
        self.text = ""
        self.phrases: list[Phrase] = []
        self.relations: list[Relation] = []

    def say(self, piece: str) -> tuple[int, int]:
        """Add words; their character span."""
        if not piece:
            return len(self.text), len(self.text)
        self.text += (" " if self.text else "") + piece
        return len(self.text) - len(piece), len(self.text)

    def name(self, things: Sequence[Thing], words_: str) -> tuple[int, int]:
        span = self.say(words_)
        ids = [t.id for t in things]
        self.phrases.append(Phrase(*span, ids, "group" if len(ids) > 1 else "object"))
        return span


@dataclass
class Writer:
    """One room and a source of chance."""

    view: View
    facts: list[Fact]
    rng: np.random.Generator

    def pick(self, options: Sequence[str]) -> str:
        return options[int(self.rng.integers(len(options)))]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

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
        if thing.label in STILL:
            return ""
        if thing.label in LYING and thing.support != "wall":
            return self.pick(("", "lying", "lying"))
        return self.pick(VERBS.get(thing.support, ("",)))

    def things_of(self, ids: Sequence[int]) -> list[Thing]:
        return [self.view.by_id[i] for i in ids]

    def fact(self, among: Sequence[Fact] | None = None) -> Fact | None:
        """A fact worth saying, the likelier the more salient its things."""
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
        return fact.weight * (targets + max(landmarks, default=0.05)) ** 2

    def tell(self, out: Telling, fact: Fact, target: tuple[int, int] | None = None) -> None:
        """Say "<target> <verb> <relation> <landmark>"; a target that was said already is given by its
        span."""
        targets, landmarks = self.things_of(fact.targets), self.things_of(fact.landmarks)
        if target is None:
            target = out.name(targets, self.phrase(targets))
        out.say(self.verb(targets[0]) if fact.relation not in ("corner", "middle", "against") else "")
        relation = out.say(self.pick(RELATION_WORDS[fact.relation][2]))
        if landmarks:
            shell = landmarks[0].shell
            said = (
                f"{self.pick(('the', 'a' if landmarks[0].label == 'wall' else 'the'))} {landmarks[0].label}"
            )
            if not shell:
                said = self.phrase(landmarks)
                if said == out.text[target[0] : target[1]] and said.startswith(("a ", "an ")):
                    said = f"another {said.split(' ', 1)[1]}"
            landmark = out.name(landmarks, said)
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
            by_label[thing.label] = max(by_label.get(thing.label, 0.0), salience(thing))
        labels = sorted(by_label, key=lambda x: (-by_label[x], x))[:LABELS]
        weights = np.array([by_label[x] for x in labels]) ** 2
        count = min(count, len(labels))
        drawn = self.rng.choice(len(labels), size=count, replace=False, p=weights / weights.sum())
        # The most salient first, as people tell.
        return [[t for t in self.view.things if t.label == labels[i]] for i in sorted(drawn)]

    def list_of(self, out: Telling, groups: Sequence[Sequence[Thing]]) -> None:
        for n, group in enumerate(groups):
            if n:
                out.say("and" if n == len(groups) - 1 else ",")
            if n and n < len(groups) - 1:
                out.text = out.text.replace(" ,", ",")
            out.name(group, self.phrase(group))


def salience(thing: Thing) -> float:
    return thing.salience * (PLAIN if thing.label in STILL else 1.0)


def a_fact(w: Writer, out: Telling) -> bool:
    """A brown lamp standing on a small table."""
    fact = w.fact()
    if fact:
        w.tell(out, fact)
    return fact is not None


def there_is(w: Writer, out: Telling) -> bool:
    """There is a vase on the wooden table."""
    fact = w.fact()
    if fact:
        many = len(fact.targets) > 1 or w.view.by_id[fact.targets[0]].plural
        out.say("there are" if many else "there is")
        w.tell(out, fact)
    return fact is not None


def room_with(w: Writer, out: Telling) -> bool:
    """A kitchen with a table and two chairs."""
    groups = w.salient(int(w.rng.choice([1, 2, 3], p=[0.15, 0.5, 0.35])))
    if groups:
        w.room(out)
        full = ("filled with",) if len(groups) > 1 else ()
        out.say(w.pick(("with", "with", "with", "containing", "featuring", "that has", *full)))
        w.list_of(out, groups)
    return bool(groups)


def room_with_fact(w: Writer, out: Telling) -> bool:
    """A bedroom with a lamp next to the bed."""
    fact = w.fact([f for f in w.facts if f.landmarks])
    if fact:
        w.room(out)
        out.say("with")
        w.tell(out, fact)
    return fact is not None


def thing_in_room(w: Writer, out: Telling) -> bool:
    """Two chairs and a lamp in a living room."""
    groups = w.salient(int(w.rng.integers(1, 3)))
    if groups:
        w.list_of(out, groups)
        out.say(w.pick(("in", "in", "inside")))
        w.room(out)
    return bool(groups)


def two_facts(w: Writer, out: Telling) -> bool:
    """A vase on a table next to a sofa."""
    first = w.fact([f for f in w.facts if len(f.landmarks) == 1 and not w.view.by_id[f.landmarks[0]].shell])
    if first is None:
        return False
    middle = first.landmarks[0]
    more = [
        f
        for f in w.facts
        if f.targets == (middle,) and f.landmarks and not set(f.landmarks) & set(first.targets)
    ]
    second = w.fact(more)
    if second is None:
        return False
    w.tell(out, first)
    w.tell(out, second, out.relations[-1].landmark)
    return True


def holding(w: Writer, out: Telling) -> bool:
    """A small table holding a lamp; a shelf filled with books."""
    fact = w.fact([f for f in w.facts if f.relation in ("on", "in") and f.landmarks])
    if fact is None:
        return False
    landmarks, targets = w.things_of(fact.landmarks), w.things_of(fact.targets)
    out.name(landmarks, w.phrase(landmarks))
    options = (
        ("holding", "with", "containing") if fact.relation == "in" else ("holding", "with", "displaying")
    )
    out.say(w.pick(options))
    out.name(targets, w.phrase(targets))
    if fact.relation == "on" and w.chance(0.5):
        out.say("on top")
    return True


def a_sign(w: Writer, out: Telling) -> bool:
    """A red sign that says home hanging on the wall."""
    signs = [t for t in w.view.things if t.placed.text]
    if not signs:
        return False
    out.name(signs[:1], w.phrase(signs[:1]))
    out.say(w.pick(("that says", "reading")))
    out.say(signs[0].placed.text.lower())
    out.say(w.pick(("", "hanging")))
    out.say("on the wall" if w.chance(0.6) else "in")
    if out.text.endswith(" in"):
        w.room(out)
    return True


def a_view(w: Writer, out: Telling) -> bool:
    """A view of a small office with a desk."""
    groups = w.salient(int(w.rng.integers(1, 3)))
    if groups:
        out.say(w.pick(("a view of", "a picture of", "the inside of")))
        w.room(out)
        out.say("with")
        w.list_of(out, groups)
    return bool(groups)


WAYS: tuple[tuple[Callable[[Writer, Telling], bool], float], ...] = (
    (a_fact, 4.0),
    (there_is, 0.6),
    (room_with, 5.0),
    (room_with_fact, 2.5),
    (thing_in_room, 1.5),
    (two_facts, 2.5),
    (holding, 1.0),
    (a_sign, 0.4),
    (a_view, 0.6),
)


def caption(writer: Writer, max_words: int) -> Telling:
    """One caption of at most `max_words` words. Raises AtlasError for a room with nothing to say about."""
    weights = np.array([weight for _, weight in WAYS])
    for _ in range(TRIES):
        way = WAYS[int(writer.rng.choice(len(WAYS), p=weights / weights.sum()))][0]
        out = Telling()
        if way(writer, out) and len(words(out.text)) <= max_words:
            return out
    raise AtlasError(f"captions: a {writer.view.category} shows nothing to caption; render the world anew")


class Captions:
    """The annotator of conf/data/rooms_captions.yaml: `per_scene` different captions for each scene."""

    def __init__(self, per_scene: int = 5, max_words: int = 16) -> None:
        if per_scene < 1 or max_words < 6:
            raise ConfigError("conf/data: annotator: per_scene must be at least 1 and max_words at least 6")
        self.per_scene, self.max_words = per_scene, max_words

    def of_room(self, plan: Plan, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Telling]:
        view = look_at(plan, objects)
        writer = Writer(view, [f for f in find_facts(view) if f.relation not in UNSAID], rng)
        writer.facts = sorted(writer.facts, key=lambda f: (-writer.worth(f), str(f)))[:FACTS]
        told: dict[str, Telling] = {}
        for _ in range(TRIES):
            new = caption(writer, self.max_words)
            told.setdefault(new.text, new)
            if len(told) == self.per_scene:
                break
        return list(told.values())

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the captions of every scene under `corpus_root` to `out` (Examples, one per line)."""
        from attention_atlas.corpus import read_corpus
        from attention_atlas.worlds.rooms.plan_file import read_plans

        plans = read_plans(Path(corpus_root) / "plans.jsonl")
        scenes = read_corpus(corpus_root).scenes
        examples = []
        for number, (image_id, scene) in enumerate(scenes.items()):
            if image_id not in plans:
                raise AtlasError(
                    f"{corpus_root}/plans.jsonl: no plan of image '{image_id}'; render the world anew"
                )
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, 5]))
            for n, told in enumerate(self.of_room(plans[image_id], scene.objects, rng)):
                examples.append(
                    Example(f"{image_id}.c{n}", image_id, told.text, told.phrases, told.relations)
                )
        write_examples(out, examples)
