"""parse.jsonl: the same words as everywhere, one clear line for bad input, a round trip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.language.parse import parse_texts, read_parses, write_parses
from attention_atlas.language.parsed import Parse
from attention_atlas.language.words import words

TEXTS = {
    "a": "A lamp stands on the table.  It's red!",
    "b": "there is a t-shirt in the window.\nThe walls aren't painted",
}


@pytest.fixture(scope="module")
def parses() -> list[Parse]:
    return parse_texts(list(TEXTS), list(TEXTS.values()))


def test_tokens_are_the_words(parses: list[Parse]) -> None:
    for parse in parses:
        expected = [(w.text, w.start, w.end) for w in words(TEXTS[parse.id])]
        assert [(t.text, t.start, t.end) for t in parse.tokens] == expected


def test_heads_and_sentences(parses: list[Parse]) -> None:
    tokens = parses[0].tokens
    assert [t.text for t in tokens] == [
        "A",
        "lamp",
        "stands",
        "on",
        "the",
        "table",
        ".",
        "It",
        "'s",
        "red",
        "!",
    ]
    assert tokens[0].head == 1 and tokens[1].dep == "nsubj" and tokens[2].head == 2
    assert [t.sent for t in tokens] == [0] * 7 + [1] * 4
    assert [t.pos for t in tokens[:4]] == ["DET", "NOUN", "VERB", "ADP"]


def test_text_keeps_the_spacing_of_the_source(parses: list[Parse]) -> None:
    assert parses[0].text(0, 7) == "A lamp stands on the table." and parses[0].chars(4, 6) == (17, 26)
    assert parses[0].text(7, 9) == "It's"


def test_the_order_and_batching_of_texts_change_nothing(parses: list[Parse]) -> None:
    again = parse_texts(list(TEXTS)[::-1], list(TEXTS.values())[::-1], batch=1)
    assert again[::-1] == parses


def test_round_trip(tmp_path: Path, parses: list[Parse]) -> None:
    write_parses(tmp_path / "p.jsonl", parses)
    assert read_parses(tmp_path / "p.jsonl") == parses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.pop("phrases"), "line 1: phrases: is missing"),
        (lambda r: r["phrases"][0].update(end=99), r"span \[0,99\] is outside its 11 tokens"),
        (lambda r: r["tokens"][0].update(lemma="a"), "line 1: cannot be read .*unexpected.*lemma"),
        (lambda r: r["relations"][0].pop("landmark"), "line 1: landmark: is missing"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, parses: list[Parse], change, message: str) -> None:
    path = tmp_path / "p.jsonl"
    write_parses(path, parses[:1])
    row = json.loads(path.read_text())
    change(row)
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(AtlasError, match=message):
        read_parses(path)


def test_a_duplicated_id_is_named(tmp_path: Path, parses: list[Parse]) -> None:
    write_parses(tmp_path / "p.jsonl", [parses[0], parses[0]])
    with pytest.raises(AtlasError, match="line 2: id: 'a' occurs twice"):
        read_parses(tmp_path / "p.jsonl")


def test_a_text_without_words_and_an_absent_pipeline() -> None:
    with pytest.raises(AtlasError, match="example 'x': text: has no words"):
        parse_texts(["x"], ["  "])
    with pytest.raises(
        AtlasError, match=r"'no_such_pipeline' is neither .*; pip install 'attention-atlas\[language-data\]'"
    ):
        parse_texts(["x"], ["a lamp"], model="no_such_pipeline")
    with pytest.raises(AtlasError, match="1 ids but 2 texts"):
        parse_texts(["x"], ["a", "b"])


def test_a_pipeline_without_a_parser_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(AtlasError, match="has no dependency parser"):
        parse_texts(["x"], ["a lamp"], model=str(tmp_path / "blank"))
