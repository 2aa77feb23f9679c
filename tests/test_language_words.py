"""One tokenizer for everything, and joining sentences into a paragraph."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from attention_atlas.data.joining import join_sentences
from attention_atlas.language.words import words


def test_words_split_clitics_and_punctuation() -> None:
    found = words("There's a couch, isn't there?")
    assert [w.text for w in found] == ["There", "'s", "a", "couch", ",", "is", "n't", "there", "?"]
    assert (found[1].start, found[1].end) == (5, 7)


def test_white_space_is_no_word() -> None:
    assert [(w.text, w.start) for w in words("  a \n\n lamp\t")] == [("a", 2), ("lamp", 7)]
    assert words(" \n ") == []


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_offsets_give_back_the_text(text: str) -> None:
    found = words(text)
    assert all(w.text == text[w.start : w.end] and not w.text.isspace() for w in found)
    ends = [0, *(w.end for w in found)]
    starts = [*(w.start for w in found), len(text)]
    assert all(not text[a:b].strip() for a, b in zip(ends, starts, strict=True))


def test_joining_ends_each_sentence() -> None:
    parts = ["A small room", " Two  lamps. ", "", "Is it a den?", "One bed,", 'It says "exit."']
    assert join_sentences(parts) == 'A small room. Two lamps. Is it a den? One bed. It says "exit."'


def test_joining_as_written_keeps_what_is_missing() -> None:
    assert join_sentences(["A small room", "One bed,"], final_punctuation=False) == "A small room One bed,"
