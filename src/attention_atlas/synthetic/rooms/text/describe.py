"""One paragraph on one room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from attention_atlas.data.corpus import Phrase, Relation, SceneObject
from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.rooms.plan import Plan
from attention_atlas.synthetic.rooms.text.details import impression, miss, more_of_it, surfaces, vague
from attention_atlas.synthetic.rooms.text.openings import opening
from attention_atlas.synthetic.rooms.text.sentences import AGAIN, FORMS, Maker
from attention_atlas.synthetic.rooms.text.teller import Teller
from attention_atlas.synthetic.rooms.text.things import Thing, look_at
from attention_atlas.synthetic.rooms.text.tree import Sentence, render

LENGTHS = (4, 5, 6)  # numbers of sentences, weighted by LENGTH_WEIGHTS
LENGTH_WEIGHTS = (0.12, 0.68, 0.2)
OPENING = 0.8
# The next sentence: more about the last object, the surfaces of the room, a vague mention, an error, an
# impression, or something new.
NEXT = (more_of_it, surfaces, vague, miss, impression, None)
NEXT_WEIGHTS = (0.15, 0.12, 0.03, 0.04, 0.025, 0.635)
MOST = {more_of_it: 3, surfaces: 2}  # maximum per text; 1 for the others
FOCUS_ON_SALIENT = 1.5  # exponent of salience in the choice of topics
COMPOUND = 0.095  # probability that two sentences are joined
TRIES = 8  # topics tried before falling back to a general sentence
TOGETHER = 0.75  # probability that several objects of a kind are described together


def describe(
    plan: Plan, objects: Sequence[SceneObject], rng: np.random.Generator
) -> tuple[str, list[Phrase], list[Relation]]:
    """Describe a room as people do in about five sentences.

    `objects`: the visible objects of the image (boxes and areas in pixels). Returns the text, all its noun
    phrases on every level of nesting with their objects, and its target-relation-landmark triples; offsets
    are in characters. Every relation between existing objects is true of the plan; phrases of kind 'miss'
    name objects that do not exist. Raises AtlasError if nothing is visible.
    """
    view = look_at(plan, objects)
    if not view.things:
        raise AtlasError("describe: objects: no object is visible; render another scene")
    teller = Teller(view, rng)
    count = teller.weighted(LENGTHS, LENGTH_WEIGHTS)
    sentences: list[Sentence] = []
    if teller.chance(OPENING):
        sentences.append(_complete(teller, opening(teller, _leading(teller))))
    while len(sentences) < count:
        sentence = _next(teller, first=not sentences)
        if sentence.clause and teller.chance(COMPOUND):
            more = _next(teller, joined=True)
            link = teller.pick((" and ", " and ", ", and "))
            sentence = Sentence([*sentence.items, link, *more.items], [*sentence.claims, *more.claims])
            teller.focus = ()
        sentences.append(sentence)
    return render(sentences)


def _complete(teller: Teller, sentence: Sentence) -> Sentence:
    """Add the claims about its landmarks to a sentence."""
    sentence.claims += teller.further
    teller.further.clear()
    return sentence


def _leading(teller: Teller) -> list[list[Thing]]:
    first = _topic(teller)
    rest = [t for t in teller.view.things if t.label != first[0].label]
    return [first, [rest[0]]] if rest else [first]


def _topic(teller: Teller) -> list[Thing]:
    """The next topic: salient objects first, sometimes all of a kind together."""
    fresh = [t for t in teller.view.things if t.id not in teller.covered] or list(teller.view.things)
    thing = teller.weighted(fresh, [t.salience**FOCUS_ON_SALIENT for t in fresh])
    same = teller.view.same(thing)
    uncovered = all(t.id not in teller.covered for t in same)
    return same if len(same) > 1 and uncovered and teller.chance(TOGETHER) else [thing]


def _next(teller: Teller, joined: bool = False, first: bool = False) -> Sentence:
    """The next sentence. `joined`: one that can follow "and"; `first`: one that can open a text."""
    detail = teller.weighted(NEXT, NEXT_WEIGHTS)
    if detail is not None and not first and teller.details.count(detail) < MOST.get(detail, 1):
        sentence = detail(teller)
        teller.details.append(detail)
        if sentence is not None:
            teller.focus = ()
            return _complete(teller, sentence)
        teller.further.clear()
    for _ in range(TRIES):
        things = _topic(teller)
        known = any(t.id in teller.mentioned for t in things)
        for maker in _shuffled(teller, AGAIN if known else FORMS):
            sentence = maker(teller, things)
            if sentence is not None and (sentence.clause or not joined):
                teller.covered.update(t.id for t in things)
                teller.focus = tuple(things) if sentence.focused else ()
                return _complete(teller, sentence)
            teller.further.clear()
        teller.covered.update(t.id for t in things)
    return impression(teller)


def _shuffled(teller: Teller, forms: Sequence[tuple[float, Maker]]) -> Iterator[Maker]:
    """All forms in a random order, those with high weight early."""
    left = list(forms)
    while left:
        chosen = teller.weighted(left, [w for w, _ in left])
        left.remove(chosen)
        yield chosen[1]
