"""Programs give the answers that a hand-made table has; questions are well formed, balanced and true."""

from collections import Counter, defaultdict
from random import Random

import numpy as np
import pytest
from worlds_tabletop_scene import TABLE, tables, understood, write_corpus

from attention_atlas.data.corpus import read_corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.synthetic.tabletop import questions
from attention_atlas.synthetic.tabletop.asking import TYPES, Chain, ask, noun_of
from attention_atlas.synthetic.tabletop.programs import (
    NotUnique,
    Program,
    Step,
    answer_text,
    program_from,
    run,
)
from attention_atlas.synthetic.tabletop.questions import SHARES, Questions
from attention_atlas.synthetic.tabletop.sampling import Sampler
from attention_atlas.synthetic.tabletop.table import Table, holds


def steps(*rows):
    """Steps from (function, inputs, words)."""
    return [Step(function, tuple(inputs), tuple(words)) for function, inputs, words in rows]


SCENE = ("scene", [], [])
RED = ("filter_color", [0], ["red"])
CUBES = ("filter_shape", [0], ["cube"])


@pytest.mark.parametrize("rows, answer", [
    ([SCENE, RED, ("count", [1], [])], "2"),
    ([SCENE, RED, ("filter_shape", [1], ["cube"]), ("exist", [2], [])], "yes"),
    ([SCENE, RED, ("filter_shape", [1], ["sphere"]), ("exist", [2], [])], "no"),
    ([SCENE, ("filter_shape", [0], ["ring"]), ("unique", [1], []), ("query_color", [2], [])], "red"),
    # Left of the ring (side 0.6): the cube, the sphere and the blue cube.
    ([SCENE, ("filter_shape", [0], ["ring"]), ("unique", [1], []), ("relate", [2], ["left"]),
      ("count", [3], [])], "3"),
    # Behind the red cube (6 m): the sphere (8 m) and the blue cube (7 m); in front: the ring (5 m).
    ([SCENE, RED, ("filter_shape", [1], ["cube"]), ("unique", [2], []), ("relate", [3], ["behind"]),
      ("filter_shape", [4], ["cube"]), ("unique", [5], []), ("query_color", [6], [])], "blue"),
    ([SCENE, RED, ("filter_shape", [1], ["cube"]), ("unique", [2], []), ("relate", [3], ["front"]),
      ("unique", [4], []), ("query_shape", [5], [])], "ring"),
    # Two hops: left of the thing in front of the red cube.
    ([SCENE, RED, ("filter_shape", [1], ["cube"]), ("unique", [2], []), ("relate", [3], ["front"]),
      ("unique", [4], []), ("relate", [5], ["left"]), ("filter_size", [6], ["large"]),
      ("count", [7], [])], "2"),
    ([SCENE, ("filter_shape", [0], ["ring"]), ("unique", [1], []), ("query_size", [2], []),
      ("filter_shape", [0], ["sphere"]), ("unique", [4], []), ("query_size", [5], []),
      ("equal_size", [3, 6], [])], "yes"),
    ([SCENE, ("filter_shape", [0], ["ring"]), ("unique", [1], []), ("query_color", [2], []),
      ("filter_shape", [0], ["sphere"]), ("unique", [4], []), ("query_color", [5], []),
      ("equal_color", [3, 6], [])], "no"),
    ([SCENE, CUBES, ("count", [1], []), RED, ("count", [3], []), ("equal_integer", [2, 4], [])], "yes"),
    ([SCENE, CUBES, ("count", [1], []), ("count", [0], []), ("less_than", [2, 3], [])], "yes"),
    ([SCENE, CUBES, ("count", [1], []), ("count", [0], []), ("greater_than", [2, 3], [])], "no"),
    ([SCENE, ("filter_material", [0], ["rubber"]), ("count", [1], [])], "2"),
])  # fmt: skip
def test_programs_on_the_hand_made_table(rows, answer):
    assert answer_text(run(steps(*rows), TABLE)[-1]) == answer


@pytest.mark.parametrize("rows, message", [
    ([SCENE, CUBES, ("unique", [1], [])], "2 objects"),
    ([SCENE, ("filter_shape", [0], ["cone"]), ("unique", [1], [])], "0 objects"),
])  # fmt: skip
def test_the_thing_must_be_single(rows, message):
    with pytest.raises(NotUnique, match=message):
        run(steps(*rows), TABLE)


@pytest.mark.parametrize("rows, message", [
    ([SCENE, ("fly", [0], [])], "step 1: fly"),
    ([SCENE, ("filter_color", [0], ["pink"])], "step 1: filter_color.'pink'"),
    ([SCENE, ("relate", [0], ["above"])], "step 1: relate"),
    ([SCENE, ("relate", [0], ["left"])], "step 1: relate"),  # of four things
    ([SCENE, ("count", [1], [])], "step 1: inputs .1. are not before"),
    ([SCENE, ("count", [], [])], "step 1: count.. of 0 inputs"),
    ([SCENE, ("query_weight", [0], [])], "query_weight"),
])  # fmt: skip
def test_bad_programs_are_named(rows, message):
    with pytest.raises(AtlasError, match=message):
        run(steps(*rows), TABLE)
    with pytest.raises(AtlasError, match="ends in a set"):
        answer_text(run(steps(SCENE), TABLE)[-1])


def test_programs_survive_the_file():
    program = Program()
    program.add("exist", program.add("filter_color", program.add("scene"), values=["red"]))
    rows = program.rows()
    assert rows[1] == {"function": "filter_color", "inputs": [0], "value_inputs": ["red"]}
    assert program_from(rows) == program.steps
    with pytest.raises(AtlasError, match=r"step 0: not a step .'inputs'"):
        program_from([{"function": "scene"}])


def chain(*parts):
    """Chain from nouns and relations in turn."""
    return Chain(tuple(noun_of(n) for n in parts[::2]), tuple(parts[1::2]))


def test_a_question_by_hand():
    path = chain({"shape": "cube"}, "behind", {"color": "red", "shape": "cube"})
    made = ask("Query Attribute", "f", "What color is {0}?", [path], ("unique", "query_color"), TABLE, "the")
    assert made.telling.text == "What color is the cube behind the red cube?"
    assert made.answer == "blue" and made.asked == (3,)
    assert [(made.telling.text[p.start : p.end], p.objects) for p in made.telling.phrases] == [
        ("the cube", [3]), ("the red cube", [0]),
    ]  # fmt: skip
    functions = [s.function for s in made.program.steps]
    assert functions == [
        "scene", "filter_color", "filter_shape", "unique", "relate", "filter_shape", "unique", "query_color",
    ]  # fmt: skip


def test_a_comparison_by_hand():
    chains = [chain({"color": "red"}), chain({"size": "large"}, "left", {"shape": "ring"})]
    form = "Are there more {0} than {1}?"
    made = ask("Compare Integer", "f", form, chains, ("count", "greater_than"), TABLE, "many")
    assert made.telling.text == "Are there more red things than large things left of the ring?"
    assert made.answer == "no" and made.asked == (0, 2, 3)  # two red, two large
    made = ask("Exist", "f", "Is there {0}?", [chain({"shape": "cone"})], ("exist",), TABLE, "a")
    assert made.telling.text == "Is there a cone?" and made.answer == "no" and made.asked == ()
    assert made.telling.phrases[0].kind == "miss"


def answer_by_words(question, table):
    """The answer from the chains of phrases, without the program: an independent reading of the words."""
    text = question.telling.text
    phrases = [(p, understood(text[p.start : p.end].replace("thing", "object"), table)[0])
               for p in question.telling.phrases]  # fmt: skip
    groups, ends = [], None
    for phrase, fits in reversed(phrases):
        following = next((q for q, _ in phrases if q.start > phrase.end), None)
        between = text[phrase.end : following.start].strip() if following else ""
        name = {"left of": "left", "right of": "right", "in front of": "front", "behind": "behind"}.get(
            between
        )
        if name:
            (landmark,) = ends
            fits = [i for i in fits if i.id != landmark.id and holds(i, name, landmark)]
            groups.pop(0)
        ends = fits
        groups.insert(0, fits)
    if question.type == "Exist":
        return "yes" if groups[0] else "no", groups
    if question.type == "Count":
        return str(len(groups[0])), groups
    for kind, word in (("size", "size"), ("color", "color"), ("material", "made of"), ("shape", "shape"),
                       ("material", "material")):  # fmt: skip
        if question.type.endswith("Attribute") and word in text:
            values = [getattr(group[0], kind) for group in groups]
            assert all(len(group) == 1 for group in groups)
            return values[0] if len(values) == 1 else ("yes" if values[0] == values[1] else "no"), groups
    more, fewer = ("more" in text or "greater" in text), ("fewer" in text or "less" in text)
    first, second = len(groups[0]), len(groups[1])
    true = first > second if more else first < second if fewer else first == second
    return "yes" if true else "no", groups


@pytest.fixture(scope="module")
def asked():
    named = [(f"t{i:03d}", table) for i, table in enumerate(tables(80))]
    return dict(named), Questions(per_scene=8).of_tables(named, np.random.default_rng(0))


def test_answers_agree_with_a_reading_of_the_words(asked):
    known, questions = asked
    for image_id, question in questions:
        answer, groups = answer_by_words(question, known[image_id])
        assert answer == question.answer, question.telling.text
        assert sorted({i.id for group in groups for i in group}) == list(question.asked)
    assert len(questions) == 80 * 8 and len({(i, q.telling.text) for i, q in questions}) == 80 * 8


def test_no_relation_of_a_single_thing_is_idle(asked):
    """Without the relation the words would mean several things (CLEVR's degenerate questions)."""
    known, questions = asked
    checked = 0
    for image_id, question in questions:
        text = question.telling.text
        for phrase in question.telling.phrases[:-1]:
            name = text[phrase.start : phrase.end]
            follows = text[phrase.end :].strip().startswith(("left of", "right of", "in front of", "behind"))
            if name.startswith("the ") and follows:
                assert len(understood(name.replace("thing", "object"), known[image_id])[0]) > 1, text
                checked += 1
    assert checked > 50


def test_no_number_is_compared_with_that_of_a_part(asked):
    """That there are more cubes than red cubes is known without looking."""
    _, questions = asked
    checked = 0
    for _, question in questions:
        if question.type == "Compare Integer":
            text, phrases = question.telling.text, question.telling.phrases
            words = [
                set(text[p.start : p.end].replace("things", "").split()) for p in (phrases[0], phrases[-1])
            ]
            words = [{w.removesuffix("s") for w in some} for some in words]
            assert not words[0] <= words[1] and not words[1] <= words[0], text
            checked += 1
    assert checked > 50


def test_types_have_their_shares_and_hops_are_there(asked):
    _, questions = asked
    count = Counter(q.type for _, q in questions)
    assert set(count) == set(TYPES)
    for name, share in SHARES.items():
        assert count[name] == pytest.approx(share * len(questions), abs=3)
    hops = Counter(q.family.split("_")[-2] for _, q in questions)
    assert set(hops) >= {"0", "1", "2"} and hops["1"] > 0.25 * len(questions)


def test_who_does_not_look_knows_little(asked):
    """The most frequent answer of a family (type, attribute, hops)."""
    _, questions = asked
    families = defaultdict(Counter)
    for _, question in questions:
        families[question.type, question.family][question.answer] += 1
    of_type = defaultdict(list)
    for (type_, _), answers in families.items():
        of_type[type_].append((max(answers.values()), sum(answers.values())))
    share = {t: sum(m for m, _ in v) / sum(n for _, n in v) for t, v in of_type.items()}
    for type_ in ("Exist", "Compare Attribute", "Compare Integer"):
        assert share[type_] < 0.56, share
    assert share["Count"] < 0.3 and share["Query Attribute"] < 0.36, share


def test_a_table_of_one_thing_is_asked_without_relations():
    one = Table("white", TABLE.items[:1])
    sampler = Sampler(one, Random(0))
    assert all(sampler.of_type("Exist", 1) is None for _ in range(20))
    kept = Questions(per_scene=3).of_tables([("a", one)], np.random.default_rng(0))
    assert kept and all("_0_hop" in q.family for _, q in kept)


def test_the_question_layer_is_a_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(questions, "CHUNK", 5)  # three parts
    known = write_corpus(tmp_path, 12, "val")
    for name, workers in (("one", 1), ("two", 2)):
        Questions(per_scene=4, workers=workers)(tmp_path, tmp_path / f"{name}.jsonl", seed=3)
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()
    corpus = read_corpus(tmp_path, "one")
    assert len(corpus.split("val")) == 48
    for example in corpus.examples:
        assert example.extra["type"] in TYPES
        outputs = run(program_from(example.extra["program"]), known[example.image_id])
        assert [answer_text(outputs[-1])] == example.answers


@pytest.mark.parametrize("settings, message", [
    ({"per_scene": 0}, "per_scene: 0"), ({"shares": {"Exists": 1.0}}, "'Exists'.*Exist"),
    ({"shares": {"Exist": -1.0}}, "Exist: -1.0 is below 0"), ({"shares": {"Exist": 0}}, "all are 0"),
])  # fmt: skip
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Questions(**settings)
