"""Questions about signs: true of a scene made by hand, answers of people, the rooms they are about."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from attention_atlas.data.corpus import Scene, SceneObject, read_corpus, write_examples, write_scenes
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.vqa_accuracy import consensus
from attention_atlas.measures.vqa_normalise import normalise
from attention_atlas.synthetic.rooms.sign_questions import SHARES, SignQuestions, misspelt, sign_questions
from attention_atlas.synthetic.rooms.sign_words import LONGEST, draw_text, held_out, usable


def sign(id, colour, box, text, area=400, occlusion=0.0):
    return SceneObject(id, "sign", [colour], box, area, occlusion, text)


def scene(*more, image_id="i0", split="train"):
    """Red EXIT over the sofa at the left, blue NO ENTRY below white OPEN at the right."""
    objects = [
        SceneObject(0, "wall", ["gray"], (0, 0, 100, 60), 4000),
        sign(1, "red", (10, 20, 40, 35), "EXIT", 900),
        sign(2, "blue", (70, 40, 95, 52), "NO ENTRY", 300),
        sign(3, "white", (70, 10, 95, 25), "OPEN", 400),
        SceneObject(4, "sofa", ["green"], (5, 60, 45, 90), 1500),
        SceneObject(5, "chair", ["red"], (70, 70, 80, 90), 200),
        SceneObject(6, "chair", ["red"], (85, 70, 95, 90), 200),
        *more,
    ]
    return Scene(image_id, f"images/{image_id}.png", 100, 100, split, objects)


def asked(of):
    """{(group, phrase): (answer, sign)} of every question."""
    found = sign_questions(of, np.random.default_rng(0))
    return {(q.group, q.phrase): (q.answer, s.id) for q, s in found}


def test_every_question_about_the_scene_made_by_hand():
    found = asked(scene())
    assert found["color", "the red sign"] == ("exit", 1)
    assert found["color", "the blue sign"] == ("no entry", 2)
    assert found["place", "the leftmost sign"] == ("exit", 1)
    assert ("place", "the top sign") not in found  # OPEN is above EXIT by the margin, not by more
    assert found["place", "the bottom sign"] == ("no entry", 2)
    assert ("place", "the rightmost sign") not in found  # two are equally far
    assert found["size", "the largest sign"] == ("exit", 1)
    assert found["size", "the smallest sign"] == ("no entry", 2)
    assert found["above thing", "the sign above the sofa"] == ("exit", 1)
    assert not [k for k in found if "chair" in k[1]]  # there are two chairs
    assert found["beside sign", "the sign below the white one"] == ("no entry", 2)
    assert found["beside sign", "the sign above the blue one"] == ("open", 3)
    assert found["what color", 'the sign that says "exit"'] == ("red", 1)
    assert found["which side", 'the sign that says "exit"'] == ("left", 1)
    assert found["which side", 'the sign that says "open"'] == ("right", 3)
    assert not [k for k in found if k[0] == "only sign"]


def test_hidden_signs_are_not_asked_about_but_count():
    found = asked(scene(sign(7, "red", (48, 0, 60, 9), "HIDDEN", 60, occlusion=0.5)))
    assert not [a for a, _ in found.values() if a == "hidden"]
    assert ("color", "the red sign") not in found  # two are red
    assert ("place", "the top sign") not in found or found["place", "the top sign"][1] != 7
    assert ("size", "the smallest sign") not in found


def test_one_sign_is_simply_the_sign():
    one = Scene("i", "i.png", 100, 100, "train", [sign(3, "red", (10, 10, 40, 30), "EXIT")])
    assert asked(one)["only sign", "the sign"] == ("exit", 3)
    assert not [k for k in asked(one) if k[0] in ("color", "place", "size")]


def test_ten_answers_agree_on_the_right_one_and_some_are_misspelt():
    examples = SignQuestions(per_scene=20, error=0.3).of_scene(scene(), np.random.default_rng(1), {"exit"})
    assert all(consensus(e.answers) == e.extra["answer"] and len(e.answers) == 10 for e in examples)
    wrong = [a for e in examples for a in e.answers if normalise(a) != e.extra["answer"]]
    assert wrong and len(wrong) < 0.5 * 10 * len(examples)
    for example in examples:
        (phrase,) = example.phrases
        assert phrase.objects == [example.extra["sign"]]
        assert example.text[phrase.start : phrase.end].startswith("the ")
    words = {e.extra["answer"]: e.extra["words"] for e in examples if e.extra["from"] == "sign"}
    assert words["exit"] == "seen" and words["open"] == "new"
    assert {e.extra["from"] for e in examples} == {"sign", "vocabulary"}


@pytest.mark.parametrize("text", ["exit", "no entry", "ab", "a1"])
def test_misspelt_is_another_text_of_as_many_words(text):
    rng = np.random.default_rng(0)
    seen = {misspelt(text, rng) for _ in range(200)}
    assert text not in seen and len(seen) > 3
    assert {len(s.split()) for s in seen} == {len(text.split())}


def test_shares_decide_how_often_a_type_is_asked():
    shares = {**SHARES, "color": 0.0}
    drawn = Counter(
        e.extra["type"]
        for n in range(40)
        for e in SignQuestions(2, shares=shares).of_scene(scene(), np.random.default_rng(n), set())
    )
    assert drawn["color"] == 0 and drawn["place"] > drawn["size"]


def test_written_layer_is_the_same_for_the_same_seed(tmp_path):
    scenes = [scene(), scene(image_id="i1", split="test")]
    write_scenes(tmp_path / "scenes.jsonl", scenes)
    write_examples(tmp_path / "descriptions.jsonl", [])
    for name in ("a", "b"):
        SignQuestions(4)(tmp_path, tmp_path / f"{name}.jsonl", 3)
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert len(read_corpus(tmp_path, str(tmp_path / "a.jsonl")).examples) == 8
    bare = Scene("i", "i.png", 100, 100, "train", [])
    write_scenes(tmp_path / "scenes.jsonl", [bare])
    with pytest.raises(AtlasError, match="no image has a sign"):
        SignQuestions(4)(tmp_path, tmp_path / "c.jsonl", 3)


def test_wrong_settings_are_named():
    with pytest.raises(ConfigError, match="per_scene"):
        SignQuestions(0)
    with pytest.raises(ConfigError, match=r"colour.*did you mean 'color'"):
        SignQuestions(shares={"colour": 1.0})


def test_training_images_never_show_a_held_out_word():
    held = held_out()
    assert 0.15 < len(held) / len(usable()) < 0.25 and max(map(len, usable())) <= LONGEST
    rng = np.random.default_rng(0)
    shown = {w for _ in range(400) for w in draw_text(rng, "train", set()).lower().split()}
    assert not shown & held
    others = [w for _ in range(400) for w in draw_text(rng, "test", set()).lower().split()]
    assert 0.4 < np.mean([w in held for w in others]) < 0.6
    assert "exit" not in draw_text(rng, "test", {"exit"}).lower().split()


@pytest.mark.slow
def test_a_signed_room_has_readable_signs_and_the_same_bytes():
    from attention_atlas.synthetic.rooms.signed import SignedRooms, readable

    made = [SignedRooms(96, (2, 3)).make("r", "test", [0, 3, 1]) for _ in range(2)]
    assert np.array_equal(made[0].rgb, made[1].rgb)
    signs = readable(made[0].scene.objects)
    assert len(signs) >= 2 and len({s.text for s in signs}) == len(signs)
    with pytest.raises(ConfigError, match="signs"):
        SignedRooms(96, (4, 2))
