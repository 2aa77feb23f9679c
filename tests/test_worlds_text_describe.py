"""Descriptions: spans, truth of what they say (checked apart from facts.py), variety, repeatability."""

from __future__ import annotations

import math
import re
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from worlds_text_room import room, seen

from attention_atlas.data.corpus import Example, Scene, check_examples
from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.rooms.kinds import COLORS
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.rooms.text import describe
from attention_atlas.synthetic.rooms.text.lexicon import NUMBERS, PARTS
from attention_atlas.synthetic.rooms.text.things import look_at

TEXTS = 150


@lru_cache(maxsize=1)
def corpus():
    """(plan, objects, text, phrases, relations) of the hand-made room and of sampled ones."""
    rows = []
    plans = [room(), *(sample_room(np.random.default_rng([2, i])).plan for i in range(29))]
    for i in range(TEXTS):
        plan = plans[i % len(plans)]
        objects = seen(plan)
        rows.append((plan, objects, *describe(plan, objects, np.random.default_rng([8, i]))))
    return rows


def test_spans_lie_in_the_text_and_name_visible_objects():
    for i, (plan, objects, text, phrases, relations) in enumerate(corpus()):
        scene = Scene(str(i), "x.png", 144, 144, "test", objects, plan.category)
        check_examples([Example(str(i), str(i), text, phrases, relations)], {str(i): scene}, "test")
        visible = {t.id for t in look_at(plan, objects).by_id.values()}
        spans = {(p.start, p.end) for p in phrases}
        assert len(spans) == len(phrases)
        for p in phrases:
            words = text[p.start : p.end]
            assert words == words.strip() and words
            assert set(p.objects) <= visible
            assert bool(p.objects) == (p.kind in ("object", "group")) or p.kind in ("pronoun", "vague")
        for r in relations:
            assert r.target in spans and r.landmark in spans
            assert r.target_objects == next(p.objects for p in phrases if (p.start, p.end) == r.target)
        assert re.fullmatch(r"([A-Z][^.]*\.)( [A-Z][^.]*\.){3,5}", text), text
        assert "  " not in text and " ." not in text and " ," not in text


def _bounds(plan, i):
    p = plan.object(i)
    return np.array(p.center) - np.array(p.size) / 2, np.array(p.center) + np.array(p.size) / 2


def _from_camera(plan, i):
    """Metres to the right of the line of sight, and along it."""
    eye, target = np.array(plan.camera.eye[:2]), np.array(plan.camera.target[:2])
    ahead = (target - eye) / np.linalg.norm(target - eye)
    x, y = np.array(plan.object(i).center[:2]) - eye
    return x * ahead[1] - y * ahead[0], x * ahead[0] + y * ahead[1]


def _true(plan, target, word, landmark):
    """Whether the words hold of two objects; written without facts.py, from the plan's numbers alone."""
    a, b = plan.object(target), plan.object(landmark)
    (alow, ahigh), (blow, bhigh) = _bounds(plan, target), _bounds(plan, landmark)
    apart = math.hypot(*np.maximum(0, np.maximum(alow[:2] - bhigh[:2], blow[:2] - ahigh[:2])))
    if "left" in word or "right" in word:
        return (_from_camera(plan, target)[0] < _from_camera(plan, landmark)[0]) == ("left" in word)
    if word in ("in front of", "behind"):
        return (_from_camera(plan, target)[1] < _from_camera(plan, landmark)[1]) == (word == "in front of")
    if word in ("above", "over"):
        return alow[2] >= bhigh[2] - 0.05
    if word in ("below", "under", "underneath"):
        return ahigh[2] <= blow[2] + 0.05 or a.label == "rug" or (alow[2] < 0.05 and ahigh[2] < bhigh[2])
    if word in ("in", "inside"):
        return a.parent == landmark and a.support == "in"
    if word == "from":
        return b.label == "ceiling" and a.support == "ceiling"
    if word in ("on", "on top of", "around") and b.label == "wall":
        return a.wall == b.wall
    if word in ("on", "on top of"):
        on_floor = b.label == "floor" and alow[2] < 0.05
        return a.parent == landmark or on_floor
    if word in ("against", "along"):
        return a.wall == b.wall and b.label == "wall"
    if word in ("next to", "beside", "by"):
        return apart < 0.4
    if word in ("near", "close to", "around", "on each side of", "on either side of"):
        return apart < 0.9
    if word in ("far from", "far away from"):
        return apart > 2.5
    if word in ("at the foot of", "at the end of"):
        return b.label == "bed" and apart < 0.7
    if word in ("across from", "opposite"):
        return {a.wall, b.wall} == {"left", "right"}
    return word in ("between", "in between")


def test_every_relation_between_real_things_is_true():
    checked: Counter[str] = Counter()
    for plan, _, text, _, relations in corpus():
        for r in relations:
            word = text[slice(*r.relation)].lower()
            for target in r.target_objects:
                for landmark in r.landmark_objects:
                    assert _true(plan, target, word, landmark), (text, word)
                    checked[word] += 1
    assert len(checked) >= 12 and sum(checked.values()) > TEXTS


def test_words_of_looks_and_numbers_are_true():
    patterns = {"striped", "checkered", "dotted", "floral", "bordered"}
    counts: Counter[str] = Counter()
    for plan, objects, text, phrases, _ in corpus():
        attributes = {o.id: set(o.attributes) for o in objects}
        for p in phrases:
            inner = [q for q in phrases if p.start <= q.start and q.end <= p.end and q is not p]
            if p.kind not in ("object", "group") or any(q.start > p.start or q.end < p.end for q in inner):
                continue  # only flat phrases
            words = text[p.start : p.end].lower().split()
            for word in words:
                if word in COLORS or word in patterns:
                    assert all(word in attributes[i] for i in p.objects), (text, words)
                    counts[word] += 1
                if word in NUMBERS[2:]:
                    assert len(p.objects) == NUMBERS.index(word), (text, words)
                    counts[word] += 1
            names = {name for part in PARTS.values() for name in part}
            labels = {plan.object(i).label for i in p.objects}
            assert len(labels) == 1 or labels & names
    assert len(counts) >= 12


def test_misses_name_nothing_that_is_visible():
    missed = 0
    for plan, objects, text, phrases, _ in corpus():
        present = {n for t in look_at(plan, objects).things for n in t.names}
        for p in phrases:
            longer = any(p.start == q.start and q.end < p.end for q in phrases)
            if p.kind == "miss" and not longer:
                name = text[p.start : p.end].split(" ", 1)[1]
                assert not any(name.endswith(word) for word in present), (text, name)
                missed += 1
    assert 0 < missed < TEXTS


def test_all_kinds_of_phrases_occur_and_misses_are_few():
    kinds = Counter(p.kind for row in corpus() for p in row[3])
    assert set(kinds) == {"object", "group", "abstract", "pronoun", "vague", "miss"}
    assert kinds["object"] + kinds["group"] > 0.6 * sum(kinds.values())
    assert kinds["miss"] + kinds["vague"] < 0.06 * sum(kinds.values())


def test_words_on_a_sign_are_quoted():
    texts = [describe(room(), seen(room()), np.random.default_rng(i))[0] for i in range(100)]
    assert sum('"OPEN"' in text for text in texts) >= 3


def test_same_seed_same_text_and_other_seeds_vary():
    plan, objects = room(), seen(room())
    one = describe(plan, objects, np.random.default_rng(3))
    assert one == describe(plan, objects, np.random.default_rng(3))
    assert len({describe(plan, objects, np.random.default_rng(i))[0] for i in range(20)}) == 20


def test_things_out_of_sight_are_not_named():
    plan = room()
    objects = [o for o in seen(plan) if o.label not in ("sofa", "plant")]
    for i in range(30):
        text, _, _ = describe(plan, objects, np.random.default_rng(i))
        assert not re.search(r"\b(sofa|couch|plant)\b", text)


def test_nothing_visible_is_an_error():
    with pytest.raises(AtlasError, match="no object is visible"):
        describe(room(), [], np.random.default_rng(0))
