"""Precision and recall of the parser, counted by hand on one sentence."""

from __future__ import annotations

import math

import pytest

from attention_atlas.data.corpus import Phrase, Relation
from attention_atlas.language.agreement import (
    Agreement,
    phrases_exact,
    phrases_head,
    relations_exact,
    relations_head,
)
from attention_atlas.language.heads import head_of, tokens_of
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.parsed import Parse

TEXT = "A lamp on the desk is next to the door."
#       0         1         2         3


def span(words: str) -> tuple[int, int]:
    return TEXT.index(words), TEXT.index(words) + len(words)


@pytest.fixture(scope="module")
def parse() -> Parse:
    return parse_texts(["x"], [TEXT])[0]


def test_what_the_parser_finds(parse: Parse) -> None:
    found = [parse.text(p.start, p.end) for p in parse.phrases]
    assert found == ["A lamp on the desk", "A lamp", "the desk", "the door"]
    relations = [parse.text(*r.relation) for r in parse.relations]
    assert relations == ["on", "next to"]


def test_phrases_exact_and_by_head(parse: Parse) -> None:
    gold = [Phrase(*span("A lamp"), [1]), Phrase(*span("door"), [2]), Phrase(*span("next"), [])]
    # Exact: 1 of 4 found is gold, 1 of 3 gold is found. By head: both lamp phrases and the door.
    assert phrases_exact(parse, gold) == Agreement(4, 1, 3, 1)
    assert phrases_head(parse, gold) == Agreement(4, 3, 3, 2)


def test_relations_exact_and_by_head(parse: Parse) -> None:
    exact = Relation(span("A lamp"), span("next to"), span("the door"), "distance")
    looser = Relation(span("A lamp"), span("on"), span("desk"), "direction")
    absent = Relation(span("the desk"), span("next to"), span("the door"), "distance")
    gold = [exact, looser, absent]
    assert relations_exact(parse, gold) == Agreement(2, 1, 3, 1)
    agreed, same_type = relations_head(parse, gold)
    assert agreed == Agreement(2, 2, 3, 2) and same_type == 1
    # One parsed triple serves one gold triple.
    assert relations_head(parse, [exact, exact])[0] == Agreement(2, 1, 2, 1)


def test_scores() -> None:
    total = Agreement(4, 1, 2, 1) + Agreement(1, 1, 3, 1)
    assert (total.precision, total.recall) == (0.4, 0.4) and math.isclose(total.f1, 0.4)
    assert math.isnan(Agreement().precision) and math.isnan(Agreement().recall)


def test_head_of_a_span(parse: Parse) -> None:
    assert tokens_of(parse, *span("A lamp on the desk")) == (0, 5)
    assert head_of(parse, 0, 5) == 1  # lamp
    assert head_of(parse, 3, 5) == 4  # desk
    assert tokens_of(parse, 6, 6) is None
