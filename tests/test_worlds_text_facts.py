"""Facts of a hand-made room against what its numbers say, and laws that hold in every sampled room."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from worlds_text_room import (
    BACK,
    BALL,
    BOX,
    CEILING,
    CHAIR_L,
    CHAIR_R,
    DOOR,
    HANGING,
    LAMP,
    PAINTING,
    PLANT,
    RUG,
    SIGN,
    SOFA,
    TABLE,
    room,
    seen,
)

from attention_atlas.language.spatial_terms import terms
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.rooms.text.facts import RELATION_WORDS, find_facts, holds
from attention_atlas.synthetic.rooms.text.facts import Fact as F
from attention_atlas.synthetic.rooms.text.things import look_at


def facts_of(plan=None):
    plan = plan or room()
    return set(find_facts(look_at(plan, seen(plan))))


@pytest.mark.parametrize(
    "targets,relation,landmarks",
    [
        ([LAMP], "on", [TABLE]),
        ([BALL], "in", [BOX]),
        ([TABLE], "on rug", [RUG]),
        ([RUG], "under", [TABLE]),
        ([PAINTING], "on wall", [BACK]),
        ([PAINTING], "above", [SOFA]),
        ([SOFA], "below", [PAINTING]),
        ([SOFA], "against", [BACK]),
        ([HANGING], "hanging", [CEILING]),
        ([HANGING], "above", [TABLE]),
        ([PLANT], "corner", []),
        ([TABLE], "middle", []),
        ([CHAIR_L], "left", [TABLE]),
        ([CHAIR_R], "right", [TABLE]),
        ([TABLE], "front", [SOFA]),
        ([SOFA], "behind", [TABLE]),
        ([CHAIR_L], "next to", [TABLE]),
        ([CHAIR_L, CHAIR_R], "around", [TABLE]),
        ([TABLE], "between", [CHAIR_L, CHAIR_R]),
        ([PLANT], "far", [BOX]),
    ],
)
def test_what_the_numbers_say_is_found(targets, relation, landmarks):
    assert F(tuple(targets), relation, tuple(landmarks)) in facts_of()


@pytest.mark.parametrize(
    "target,relation,landmark",
    [
        (CHAIR_L, "right", TABLE),
        (SOFA, "front", TABLE),
        (TABLE, "on", LAMP),
        (BALL, "on", BOX),
        (PAINTING, "above", TABLE),  # the table stands 1.5 m before that wall
        (HANGING, "above", SOFA),
        (PLANT, "next to", TABLE),
        (PLANT, "against", SIGN),
        (DOOR, "next to", SIGN),
        (RUG, "under", CHAIR_L),
    ],
)
def test_what_is_not_so_is_no_fact(target, relation, landmark):
    assert F((target,), relation, (landmark,)) not in facts_of()


def test_directions_are_the_viewers():
    """Seen from the back of the room, left is right and front is behind."""
    turned = room(eye=(0.0, 5.5, 1.6), target=(0.0, 1.0, 0.9))
    found = facts_of(turned)
    assert F((CHAIR_L,), "right", (TABLE,)) in found
    assert F((TABLE,), "behind", (SOFA,)) in found
    assert F((CHAIR_L,), "left", (TABLE,)) not in found


def test_what_is_hidden_or_tiny_has_no_facts():
    plan, objects = room(), seen(room())
    hidden = [replace(o, occlusion=0.9) if o.id == LAMP else o for o in objects]
    tiny = [replace(o, area=10) if o.id == BALL else o for o in hidden]
    view = look_at(plan, tiny)
    assert {LAMP, BALL} & {t.id for t in view.things} == set()
    mentioned = {i for f in find_facts(view) for i in (*f.targets, *f.landmarks)}
    assert {LAMP, BALL} & mentioned == set()
    assert not holds(view, F((LAMP,), "on", (TABLE,)))


def test_at_the_foot_of_a_turned_bed():
    """The bed's head is at the left wall (turned 90 degrees), so its foot points to +x."""
    plan = room()
    bed = replace(plan.object(SOFA), label="bed", center=(-1.0, 1.0, 0.5), size=(2.0, 1.4, 1.0), turn=90.0)
    box = replace(plan.object(BOX), center=(0.4, 1.0, 0.2))
    other = replace(plan.object(PLANT), center=(-1.0, 2.1, 0.6))
    plan.objects[:] = [p for p in plan.objects if p.id < 5] + [bed, box, other]
    found = facts_of(plan)
    assert F((BOX,), "foot", (SOFA,)) in found
    assert F((PLANT,), "foot", (SOFA,)) not in found


def test_types_and_words_agree_with_the_extractor():
    """Every phrase written for a fact is a spatial expression of the same type in the parser's table."""
    table = terms()
    for relation, (kind, _, words) in RELATION_WORDS.items():
        for phrase in words:
            assert table[tuple(phrase.split())] == kind, (relation, phrase)
    phrases = {w for _, _, words in RELATION_WORDS.values() for w in words}
    assert len(phrases) >= 12
    assert {kind for kind, _, _ in RELATION_WORDS.values()} == {"region", "direction", "distance"}


@pytest.mark.parametrize("seed", range(8))
def test_laws_in_sampled_rooms(seed):
    plan = sample_room(np.random.default_rng([9, seed])).plan
    found = facts_of(plan)
    pairs = {(f.relation, f.targets, f.landmarks) for f in found}
    for opposite in (("left", "right"), ("front", "behind")):
        for one, other in (opposite, opposite[::-1]):
            for relation, a, b in pairs:
                if relation != one:
                    continue
                assert (one, b, a) not in pairs
                labels = {plan.object(i).label for i in (*a, *b)}
                if not labels & {"rug", "window", "door"}:
                    assert (other, b, a) in pairs
    for relation, a, b in pairs:
        if relation == "above":
            low = plan.object(a[0]).center[2] - plan.object(a[0]).size[2] / 2
            high = plan.object(b[0]).center[2] + plan.object(b[0]).size[2] / 2
            assert low > high - 0.05
        if relation in ("next to", "near", "far"):
            assert sum((r, a, b) in pairs for r in ("next to", "near", "far")) == 1


def test_all_relations_occur_in_sampled_rooms():
    counts: Counter[str] = Counter()
    for seed in range(40):
        counts.update(f.relation for f in facts_of(sample_room(np.random.default_rng([5, seed])).plan))
    assert {r for r in RELATION_WORDS if counts[r]} >= set(RELATION_WORDS) - {"foot", "across", "each side"}
