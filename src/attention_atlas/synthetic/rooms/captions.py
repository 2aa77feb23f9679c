"""Five one-sentence captions per room, as people caption photographs: one salient thing or fact each, 16
words at most, no full stop. Every caption is true of the room; its phrases have gold objects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import SceneObject, write_examples
from attention_atlas.errors import AtlasError
from attention_atlas.language.words import words
from attention_atlas.synthetic.rooms.caption_writer import FACTS, UNSAID, Telling, Writer
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.text.facts import find_facts
from attention_atlas.synthetic.rooms.text.things import look_at
from attention_atlas.synthetic.telling import Annotator, numbered

TRIES = 60
# Captions of photographs are longer for busier images. A room with at least FULL_ROOM kinds of visible
# things (about one in six) gets captions of at least LONG words, so that a captioner can learn when to write
# long captions. Beam search prefers short ones: if length did not depend on the image, none would reach 16
# words, and after training on captions of 15 or 16 words it stops at 15.
FULL_ROOM, LONG = 12, 16


def a_fact(w: Writer, out: Telling) -> bool:
    """A brown lamp standing on a small table; two paintings hanging on the wall."""
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
    """A kitchen with a table and two chairs; a kitchen filled with a table, two chairs and a stove."""
    groups = w.salient(int(w.rng.choice([1, 2, 3], p=[0.2, 0.5, 0.3])))
    if groups:
        w.room(out)
        out.say("filled with" if len(groups) > 2 else w.pick(("with", "with", "with", "featuring")))
        w.list_of(out, groups)
    return bool(groups)


def room_full(w: Writer, out: Telling) -> bool:
    """A kitchen filled with a table, two chairs, a stove and a white fridge."""
    groups = w.salient(int(w.rng.integers(3, 6)))
    w.room(out)
    out.say("filled with")
    w.list_of(out, groups)
    return len(groups) > 2


def room_with_fact(w: Writer, out: Telling) -> bool:
    """A bedroom with a lamp standing next to the bed."""
    fact = w.fact([f for f in w.facts if f.landmarks])
    if fact:
        w.room(out)
        out.say("with")
        w.tell(out, fact)
    return fact is not None


def thing_in_room(w: Writer, out: Telling) -> bool:
    """Two chairs standing in a living room; two chairs and a lamp in a living room."""
    groups = w.salient(int(w.rng.integers(1, 3)))
    if groups:
        w.list_of(out, groups)
        out.say(w.verb(groups[0][0]) if len(groups) == 1 else "")
        out.say(w.pick(("in", "in", "inside")))
        w.room(out)
    return bool(groups)


def two_facts(w: Writer, out: Telling) -> bool:
    """A vase sitting on a table standing next to a sofa."""
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


# Facts are said more often than things are listed, so that the most likely caption of a room says what
# something does there.
WAYS: tuple[tuple[Callable[[Writer, Telling], bool], float], ...] = (
    (a_fact, 4.0),
    (there_is, 0.3),
    (room_with, 2.0),
    (room_with_fact, 6.0),
    (thing_in_room, 1.0),
    (two_facts, 2.0),
    (holding, 1.0),
    (a_sign, 0.4),
    (a_view, 0.3),
)


def caption(writer: Writer, max_words: int, min_words: int = 0) -> Telling:
    """One caption of at most `max_words` words, and at least `min_words` if one of `TRIES` tries is that
    long, else the longest. Raises AtlasError if the room has nothing to caption."""
    ways = ((room_full, 5.0), *WAYS) if min_words else WAYS
    weights = np.array([weight for _, weight in ways])
    longest, most = None, 0
    for _ in range(TRIES):
        way = ways[int(writer.rng.choice(len(ways), p=weights / weights.sum()))][0]
        out = Telling()
        if not way(writer, out):
            continue
        count = len(words(out.text))
        if min_words <= count <= max_words:
            return out
        if most < count <= max_words:
            longest, most = out, count
    if longest is not None:
        return longest
    raise AtlasError(f"captions: a {writer.view.category} has nothing to caption; render the world again")


class Captions(Annotator):
    """The annotator of data=rooms_captions: `per_scene` different captions for each scene.

    Captions have at most `max_words` words. Those of a room with `FULL_ROOM` kinds of visible things have at
    least `LONG` words, or `max_words` if that is less.
    """

    shortest, tries = 6, TRIES

    def __init__(self, per_scene: int = 5, max_words: int = 16) -> None:
        super().__init__(per_scene, max_words)

    def of_room(self, plan: Plan, objects: Sequence[SceneObject], rng: np.random.Generator) -> list[Telling]:
        view = look_at(plan, objects)
        writer = Writer(view, [f for f in find_facts(view) if f.relation not in UNSAID], rng)
        writer.facts = sorted(writer.facts, key=lambda f: (-writer.worth(f), str(f)))[:FACTS]
        full = len({thing.label for thing in view.things}) >= FULL_ROOM
        min_words = min(LONG, self.max_words) if full else 0
        return self.different(lambda: caption(writer, self.max_words, min_words))

    def __call__(self, corpus_root: Path, out: Path, seed: int) -> None:
        """Write the captions of every scene under `corpus_root` to `out` (Examples, one per line)."""
        from attention_atlas.data.corpus import read_corpus
        from attention_atlas.synthetic.rooms.plan_file import plans_of

        scenes = read_corpus(corpus_root).scenes
        plans = plans_of(corpus_root, scenes)
        examples = []
        for number, (image_id, scene) in enumerate(scenes.items()):
            rng = np.random.default_rng(np.random.SeedSequence([seed, number, 5]))
            examples += numbered(image_id, self.of_room(plans[image_id], scene.objects, rng))
        write_examples(out, examples)
