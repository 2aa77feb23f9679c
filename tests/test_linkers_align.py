"""Gold phrases find their parsed phrases: by span, by head word, by members, or not at all."""

from __future__ import annotations

import linker_world as world

from attention_atlas.data.corpus import Phrase
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.parsed import NounPhrase, Parse, Token
from attention_atlas.linking.align import match_phrases

TEXT = "There is a lamp on the desk between a bed and a door."


def aligned(gold: list[tuple[str, list[int]]]) -> dict[str, tuple[frozenset[int] | None, str]]:
    parse = parse_texts(["x"], [TEXT])[0]
    phrases = [Phrase(*world.span(TEXT, words), objects) for words, objects in gold]
    matches = match_phrases(parse, parse.phrases, [(p.start, p.end) for p in phrases])
    return {
        parse.text(p.start, p.end): (frozenset(o for i in spans for o in gold[i][1]) if spans else None, way)
        for p, (spans, way) in zip(parse.phrases, matches, strict=True)
    }


def test_span_head_members_and_none() -> None:
    found = aligned([("a lamp", [1]), ("a bed", [2]), ("a door", [3])])
    assert found["a lamp"] == ({1}, "span")
    assert found["a bed and a door"] == ({2, 3}, "members")
    assert found["the desk"] == (None, "")
    # The longest phrase around the lamp has the same head.
    longest = max(found, key=len)
    assert longest.startswith("a lamp on") and found[longest] == ({1}, "head")


def test_an_exact_span_goes_before_the_head() -> None:
    found = aligned([("a bed and a door", [2, 3, 4]), ("a bed", [2]), ("a door", [3])])
    assert found["a bed and a door"] == ({2, 3, 4}, "span") and found["a bed"] == ({2}, "span")


def test_gold_without_a_region_differs_from_missing_gold() -> None:
    assert aligned([("the desk", [])])["the desk"] == (frozenset(), "span")


def test_of_one_head_the_shortest_gold_is_taken() -> None:
    text = "a big old lamp"
    tokens = [
        Token(t, text.index(t), text.index(t) + len(t), pos, "", dep, 3, 0)
        for t, pos, dep in (("a", "DET", "det"), ("big", "ADJ", "amod"), ("old", "ADJ", "amod"))
    ]
    tokens.append(Token("lamp", 10, 14, "NOUN", "NN", "ROOT", 3, 0))
    parse = Parse("x", tokens, [NounPhrase(1, 4, 3, 0, False)])
    assert match_phrases(parse, parse.phrases, [(0, 14), (10, 14)]) == [([1], "head")]
