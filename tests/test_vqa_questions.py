"""Questions about rooms: true answers in a hand-made room, pairs, simulated people."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import pytest
from worlds_text_room import BOX, CHAIR_L, CHAIR_R, PLANT, room, seen

from attention_atlas.errors import ConfigError
from attention_atlas.measures.vqa_accuracy import consensus, vqa_accuracy
from attention_atlas.synthetic.rooms.asking import Asked, questions
from attention_atlas.synthetic.rooms.questions import Questions, pair_up, ten_answers
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.rooms.text.things import look_at


def asked_of(plan):
    objects = seen(plan)
    return {a.text: a for a in questions(look_at(plan, objects), objects)}


def test_answers_can_be_read_off_the_room():
    found = asked_of(room())
    for text, answer in (
        ("What room is this?", "living room"),
        ("Is this a kitchen?", "no"),
        ("Is this a living room?", "yes"),
        ("Why do people use this room?", "to relax"),
        ("What is the floor made of?", "wood"),
        ("What color is the wall?", "blue"),
        ("What color is the sofa?", "green"),
        ("Is the sofa red?", "no"),
        ("How many chairs are there?", "2"),
        ("How many windows are there?", "0"),
        ("Are there two chairs?", "yes"),
        ("Where is the plant?", "left"),
        ("Which side is the plant on?", "left"),
        ("Is the plant on the right?", "no"),
        ("Which is further left, the box or the plant?", "plant"),
        ("Is there a bathtub?", "no"),
        ("Does this room have a door?", "yes"),
        ("What is hanging from the ceiling?", "ceiling lamp"),
    ):
        assert found[text].answer == answer, text


def test_questions_know_what_they_are_about():
    found = asked_of(room())
    assert found["Where is the plant?"].objects == (PLANT,)
    assert found["How many chairs are there?"].objects == (CHAIR_L, CHAIR_R)
    assert found["Which is further left, the box or the plant?"].objects == (BOX, PLANT)
    assert found["Is there a bathtub?"].objects == ()
    for asked in found.values():
        assert asked.phrase in asked.text


def test_what_is_not_alone_or_not_clear_is_not_asked():
    found = asked_of(room())
    assert "What color is the chair?" not in found  # there are two
    assert "Where is the lamp?" not in found  # a ceiling lamp is a lamp too
    assert "Which side is the table on?" not in found  # it stands in the middle
    plan = room()
    middle = [dataclasses.replace(o, center=(-0.45, 3.7, 0.6)) if o.id == PLANT else o for o in plan.objects]
    moved = asked_of(dataclasses.replace(plan, objects=middle))
    assert "Where is the plant?" not in moved or moved["Where is the plant?"].answer != "left"


def test_ten_people_mostly_agree_and_sometimes_err():
    asked = Asked("Where is it?", "left", "where", wrong=("right",), also=("on the wall",), hard=1.0)
    rng = np.random.default_rng(0)
    many = [ten_answers(asked, rng) for _ in range(200)]
    assert all(len(a) == 10 and consensus(a) == "left" for a in many)
    shares = Counter(answer for answers in many for answer in answers)
    # 27 % err; what then is kept is what leaves "left" in front, so somewhat less.
    assert 0.15 < shares["right"] / 2000 < 0.28
    assert 0.05 < shares["on the wall"] / 2000 < 0.15
    assert np.mean([vqa_accuracy("left", a) for a in many]) > 0.99


def test_pairs_have_one_text_two_images_and_two_answers():
    rng = np.random.default_rng(3)
    rooms = [sample_room(np.random.default_rng(n)).plan for n in range(30)]
    made = Questions(per_scene=3).of_rooms([(f"r{n:02d}", p, seen(p)) for n, p in enumerate(rooms)], rng)
    by_id = {e.id: e for e in made}
    assert len(by_id) == len(made) > 40
    for example in made:
        other = by_id[example.extra["pair"]]
        assert other.extra["pair"] == example.id and other.text == example.text
        assert other.image_id != example.image_id
        assert other.extra["answer"] != example.extra["answer"]
        assert consensus(example.answers) == example.extra["answer"]
    # Who answers each question text with its most frequent answer is right in half of the cases at most.
    counts: dict[str, Counter] = {}
    for example in made:
        counts.setdefault(example.text, Counter())[example.extra["answer"]] += 1
    assert sum(max(c.values()) for c in counts.values()) <= len(made) / 2


def test_same_seed_same_questions():
    rooms = [
        (f"r{n}", p, seen(p))
        for n, p in enumerate(sample_room(np.random.default_rng(n)).plan for n in range(8))
    ]
    one, two = (Questions().of_rooms(rooms, np.random.default_rng(5)) for _ in range(2))
    assert one == two
    assert one != Questions().of_rooms(rooms, np.random.default_rng(6))


def test_a_image_is_used_once_per_question():
    yes, no = Asked("Is it?", "yes", "is"), Asked("Is it?", "no", "is")
    pairs = pair_up([[yes], [no], [yes], [yes]], 8, {"is": 1.0}, np.random.default_rng(0))
    assert len(pairs) == 1  # one "no" only
    assert {pairs[0][1].answer, pairs[0][3].answer} == {"yes", "no"}


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="did you mean 'where'"):
        Questions(shares={"were": 1.0})
    with pytest.raises(ConfigError, match="error within"):
        Questions(error=0.9)
