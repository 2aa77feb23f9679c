"""Captions and word-order pairs of tables are true, and their phrases mean what they say."""

import dataclasses

import numpy as np
import pytest
from hydra.utils import instantiate
from worlds_tabletop_scene import BLUE_CUBE, CUBE, RING, SPHERE, TABLE, tables, understood, write_corpus

from attention_atlas.data.corpus import read_corpus
from attention_atlas.errors import ConfigError
from attention_atlas.language.words import words
from attention_atlas.synthetic.tabletop import Tabletop
from attention_atlas.synthetic.tabletop.captions import Captions, _length
from attention_atlas.synthetic.tabletop.order import Claim, Order, claims, find_pairs
from attention_atlas.synthetic.tabletop.questions import Questions
from attention_atlas.synthetic.tabletop.table import Table, holds
from attention_atlas.synthetic.tabletop.telling import SIDE_WORDS, Telling, distinct, matching, wording
from attention_atlas.workflow.compose import compose

RELATION_OF = {phrase: name for name, words in SIDE_WORDS.items() for phrase in words}
RELATION_OF |= {"on its left": "left", "on its right": "right"}


def test_every_phrase_of_a_caption_means_what_its_words_say():
    checked = 0
    for seed, table in enumerate(tables(40)):
        captions = Captions().of_table(table, np.random.default_rng(seed))
        assert len({t.text for t in captions}) == len(captions) == 5
        for caption in captions:
            assert len(caption.text.split()) <= 20 and caption.phrases
            for phrase in caption.phrases:
                fits, number = understood(caption.text[phrase.start : phrase.end], table)
                assert sorted(i.id for i in fits) == sorted(phrase.objects), caption.text
                assert len(phrase.objects) == number
                assert phrase.kind == ("group" if number > 1 else "object")
                checked += 1
    assert checked > 300


def test_every_relation_of_a_caption_holds():
    seen = set()
    for seed, table in enumerate(tables(40)):
        for caption in Captions().of_table(table, np.random.default_rng(seed)):
            spans = {(p.start, p.end): p.objects for p in caption.phrases}
            for relation in caption.relations:
                name = RELATION_OF[caption.text[slice(*relation.relation)]]
                (target,), (landmark,) = relation.target_objects, relation.landmark_objects
                assert holds(table.item(target), name, table.item(landmark)), caption.text
                assert spans[relation.target] == [target] and spans[relation.landmark] == [landmark]
                seen.add(name)
    assert seen == {"left", "right", "front", "behind"}


def test_captions_are_varied_and_seeded():
    texts = [
        t.text
        for i, table in enumerate(tables(40))
        for t in Captions().of_table(table, np.random.default_rng(i))
    ]
    assert len(set(texts)) > 0.95 * len(texts)
    again = Captions().of_table(tables(1)[0], np.random.default_rng(0))
    assert [t.text for t in again] == texts[:5]


def test_a_single_shape_can_be_captioned():
    (first, *_) = TABLE.items
    captions = Captions(per_scene=3).of_table(Table("white", (first,)), np.random.default_rng(0))
    assert captions and all("object" in t.text or "cube" in t.text or "block" in t.text for t in captions)


def test_distinct_words_single_out_one_shape():
    rng = np.random.default_rng(0)
    for table in tables(30):
        for item in table.items:
            assert matching(table, distinct(item, table, rng)) == [item]


def test_wording_by_hand():
    assert wording({"size": "small", "color": "red", "shape": "cube"}) == "small red cube"
    assert wording({"material": "metal"}, many=True) == "metal objects"
    out = Telling()
    target = out.name([0], "a cube")
    phrase = out.say("behind")
    out.relate("behind", target, phrase, out.name([1, 2], "two rings"))
    assert out.text == "a cube behind two rings"
    assert [(p.start, p.end, p.objects, p.kind) for p in out.phrases] == [
        (0, 6, [0], "object"), (14, 23, [1, 2], "group"),
    ]  # fmt: skip
    (relation,) = out.relations
    assert (relation.target, relation.relation, relation.landmark) == ((0, 6), (7, 13), (14, 23))
    assert relation.landmark_objects == [1, 2] and relation.type == "direction"


def test_claims_of_a_hand_made_table():
    found = set(claims(TABLE, "color"))
    assert Claim("color", ("red", "cube"), "left", ("red", "ring")) in found
    assert Claim("color", ("red", "ring"), "front", ("blue", "sphere")) in found
    assert Claim("color", ("blue", "sphere"), "left", ("red", "cube")) in found
    assert not any(c.first == c.second for c in found)
    # Sizes do not tell the two cubes apart.
    assert not any("cube" in (c.first[1], c.second[1]) for c in claims(TABLE, "size"))


def test_swaps_by_hand():
    claim = Claim("color", ("red", "cube"), "left", ("blue", "ring"))
    assert claim.swapped("attribute") == Claim("color", ("blue", "cube"), "left", ("red", "ring"))
    assert claim.swapped("relation") == Claim("color", ("blue", "ring"), "left", ("red", "cube"))
    assert Claim("color", ("red", "cube"), "left", ("red", "ring")).things(TABLE) == [(CUBE, RING)]
    assert Claim("color", ("red", "cube"), "right", ("red", "ring")).things(TABLE) == []
    assert Claim("color", ("blue", "cube"), "front", ("blue", "sphere")).things(TABLE) == [
        (BLUE_CUBE, SPHERE)
    ]


def test_a_pair_is_found_where_there_is_one():
    left, right = dataclasses.replace(CUBE, side=-0.5), dataclasses.replace(RING, side=0.5, depth=6.1)
    first = Table("white", (left, right))
    second = Table("white", (dataclasses.replace(left, side=0.5), dataclasses.replace(right, side=-0.5)))
    rng = np.random.default_rng(0)
    pairs = find_pairs([first, second], 10, 10, ["color"], rng)
    assert {frozenset(c.relation for c in p.claims) for p in pairs} == {
        frozenset(["left"]),
        frozenset(["right"]),
    }
    assert all(p.swap == "relation" and set(p.images) == {0, 1} for p in pairs)
    assert find_pairs([first, first], 10, 10, ["color"], rng) == []
    assert len(find_pairs([first, second], 10, 1, ["color"], rng)) == 1  # each image once
    assert len(find_pairs([first, second], 1, 9, ["color"], rng)) == 1


def reads(text, table):
    """Whether "a <color> <shape> <relation> a <color> <shape>" is true, from its words."""
    for phrase in ("left of", "right of", "in front of", "behind"):
        if f" {phrase} " in text:
            first, second = text.split(f" {phrase} ")
            pairs = [(i, j) for i in understood(first, table)[0] for j in understood(second, table)[0]]
            name = {"left of": "left", "right of": "right", "in front of": "front"}.get(phrase, phrase)
            return any(holds(i, name, j) for i, j in pairs if i.id != j.id)
    raise AssertionError(text)


def test_a_pair_has_the_same_words_and_each_caption_fits_its_own_image_only(tmp_path):
    known = write_corpus(tmp_path, 80, "test")
    out = tmp_path / "order.jsonl"
    Order(pairs=12, splits=("test",), times=2)(tmp_path, out, seed=0)
    corpus = read_corpus(tmp_path, str(out))
    by_id = {e.id: e for e in corpus.examples}
    assert len(by_id) == 48 and {e.extra["swap"] for e in corpus.examples} == {"attribute", "relation"}
    for example in corpus.examples:
        other = by_id[example.extra["other"]]
        assert other.extra["other"] == example.id and other.extra["pair"] == example.extra["pair"]
        assert (example.extra["other_image"], example.extra["other_text"]) == (other.image_id, other.text)
        assert sorted(example.text.split()) == sorted(other.text.split()) and example.text != other.text
        assert reads(example.text, known[example.image_id])
        assert not reads(other.text, known[example.image_id])
        for phrase in example.phrases:
            fits, _ = understood(example.text[phrase.start : phrase.end], known[example.image_id])
            assert [i.id for i in fits] == phrase.objects
    for swap in ("attribute", "relation"):
        used = [e.image_id for e in corpus.examples if e.extra["swap"] == swap]
        assert max(used.count(i) for i in used) <= 2
    again = tmp_path / "again.jsonl"
    Order(pairs=12, splits=("test",), times=2)(tmp_path, again, seed=0)
    assert again.read_bytes() == out.read_bytes()


def test_the_caption_layer_is_a_corpus(tmp_path):
    write_corpus(tmp_path, 5, "val")
    Captions(per_scene=4)(tmp_path, tmp_path / "captions.jsonl", seed=1)
    corpus = read_corpus(tmp_path, "captions")
    assert [e.id for e in corpus.examples[:4]] == [f"val_00000.c{n}" for n in range(4)]
    assert len(corpus.split("val")) == 20


def test_the_length_of_a_caption_is_counted_as_the_models_count_it():
    assert _length("a red cube, a ring and a cone") == 9
    assert [w.text for w in words("a red cube, a ring")] == ["a", "red", "cube", ",", "a", "ring"]


@pytest.mark.parametrize("name, sort", [
    ("tabletop_captions", Captions), ("tabletop_questions", Questions), ("tabletop_order", Order),
    ("tabletop", Tabletop),
])  # fmt: skip
def test_the_shipped_configs_give_these_layers(root, name, sort):
    data = compose(root, "world", [f"data={name}"]).data
    assert data.name == name and data.images == "tabletop"
    if sort is Tabletop:
        assert data.sizes.train == 1600 and isinstance(instantiate(data.world), Tabletop)
    else:
        assert isinstance(instantiate(data.annotator), sort)
    assert data.reader._target_ == "attention_atlas.data.corpus.read_corpus"


@pytest.mark.parametrize("make, message", [
    (lambda: Captions(per_scene=0), "per_scene"), (lambda: Captions(max_words=5), "max_words"),
    (lambda: Order(pairs=0), "pairs and times"), (lambda: Order(kinds=["shape"]), "'shape'"),
    (lambda: Order(kinds=[]), "empty"),
])  # fmt: skip
def test_bad_settings_are_named(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
