"""Spans of a sentence tree against offsets counted by hand."""

import doctest

from attention_atlas.synthetic import telling
from attention_atlas.synthetic.rooms.text import lexicon
from attention_atlas.synthetic.rooms.text.teller import locate
from attention_atlas.synthetic.rooms.text.tree import Node, Sentence, phrase, render


def test_nested_phrases_and_a_relation():
    lamp, table = phrase("a lamp", objects=[3]), phrase("the small table", objects=[7])
    place, claim = locate(lamp, "on", table, "region")
    whole = Node([lamp, " ", place], lamp.objects, "object", False, lamp)
    text, phrases, relations = render([Sentence(["there is ", whole], [claim])])
    assert text == "There is a lamp on the small table."
    assert [(p.start, p.end, p.objects) for p in phrases] == [(9, 34, [3]), (9, 15, [3]), (19, 34, [7])]
    (r,) = relations
    assert (r.target, r.relation, r.landmark, r.type) == ((9, 15), (16, 18), (19, 34), "region")
    assert (r.target_objects, r.landmark_objects) == ([3], [7])


def test_relation_words_cross_a_phrase():
    """'in the corner of' is the relation, 'the corner of the room' a phrase: neither contains the other."""
    bed, room = phrase("a bed", objects=[1]), phrase("the room", kind="abstract")
    place, claim = locate(bed, "in the corner of", room, "region")
    text, phrases, relations = render([Sentence([bed, " is ", place], [claim])])
    assert text == "A bed is in the corner of the room."
    assert [text[p.start : p.end] for p in phrases] == [
        "A bed",
        "the corner of the room",
        "the corner",
        "the room",
    ]
    assert text[slice(*relations[0].relation)] == "in the corner of"


def test_claims_point_to_flat_phrases():
    """Target and landmark are the phrases without what follows them."""
    cup, table, bed = (phrase(w, objects=[i]) for i, w in enumerate(("a cup", "the table", "the bed")))
    inner, first = locate(table, "next to", bed, "distance")
    long = Node([table, " ", inner], table.objects, "object", False, table)
    outer, second = locate(cup, "on", long, "region")
    text, _, relations = render([Sentence([cup, " is ", outer], [second, first])])
    assert text == "A cup is on the table next to the bed."
    assert [(text[slice(*r.target)], text[slice(*r.landmark)]) for r in relations] == [
        ("A cup", "the table"),
        ("the table", "the bed"),
    ]


def test_sentences_are_joined_and_capitalised_also_before_a_nested_phrase():
    chairs = phrase("the chairs", objects=[2, 1], kind="group", plural=True)
    one = phrase("one of ", chairs, objects=[2])
    text, phrases, _ = render([Sentence([one, " is red"]), Sentence(["it is new"])])
    assert text == "One of the chairs is red. It is new."
    assert [(text[p.start : p.end], p.objects, p.kind) for p in phrases] == [
        ("One of the chairs", [2], "object"),
        ("the chairs", [1, 2], "group"),
    ]


def test_the_examples_in_the_lexicon():
    done = [doctest.testmod(module) for module in (lexicon, telling)]
    assert sum(d.attempted for d in done) == 3 and not any(d.failed for d in done)
