"""Noun phrases on all nesting levels, and what Appendix B leaves out."""

from __future__ import annotations

import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.phrases import STOP_WORDS


def phrases(text: str, nesting: str = "all") -> dict[str, tuple[int, bool]]:
    """Words of each phrase -> (level, stopped)."""
    parse = parse_texts(["x"], [text], nesting=nesting)[0]
    return {parse.text(p.start, p.end): (p.level, p.stop) for p in parse.phrases}


def test_the_example_of_the_paper() -> None:
    text = "There is a window with white lace curtains."
    assert phrases(text) == {
        "a window with white lace curtains": (0, False),
        "a window": (1, False),
        "white lace curtains": (1, False),
    }
    assert list(phrases(text, "flat")) == ["a window", "white lace curtains"]
    assert list(phrases(text, "full")) == ["a window with white lace curtains", "white lace curtains"]


def test_relative_clauses_belong_to_the_full_phrase() -> None:
    found = phrases("The lamp which is on the desk is red.")
    assert found["The lamp which is on the desk"] == (0, False)
    assert found["The lamp"] == (1, False) and found["the desk"] == (1, False)
    assert found["which"] == (1, True)


def test_coordinations_are_a_phrase_and_so_are_their_members() -> None:
    found = phrases("The lamp is between the bed and the door.")
    assert found["the bed and the door"] == (0, False)
    assert found["the bed"] == found["the door"] == (1, False)


def test_pronouns_and_places_are_stopped() -> None:
    found = phrases("It has a bed in the corner.")
    assert found["It"][1] and found["the corner"][1] and found["a bed in the corner"][1]
    assert not found["a bed"][1]
    # Appendix B lists exact words: the plural is kept.
    assert phrases("There are lamps in the corners.")["the corners"] == (1, False)


def test_the_stop_list_is_the_one_of_appendix_b() -> None:
    assert len(STOP_WORDS) == 13 and {"right", "background", "side"} <= STOP_WORDS
    assert not {"room", "image", "center", "wall"} & STOP_WORDS


def test_final_punctuation_is_no_part_of_a_phrase() -> None:
    assert all(not p.endswith(".") for p in phrases("A rug lies under the table with red legs."))


# Captions of the kind that people write: no article, no full stop, stray marks. Untrimmed, each has a phrase
# that begins or ends with "and", "but" or a mark.
SLIPS = (
    "A kitchen with pale wooden cabinets and a stove",
    "A bathroom with blue tiles and blue curtain",
    "Under the curtain is a desk with a blue chair and on the desk a lamp.",
    "and a small table with three black chairs",
    "And a lamp on the right side of the image, behind the bed.",
    "but a desktop and laptop computer on it",
    "There is a wall/shelves with dark chocolate trim.",
    'Lots of "wood" in this room.',
    'A sign that says "triple load" above the huge washers.',
    "There's white counter-tops and the sink is under the window",
    "On top of the counter-top there is a mini-fridge.",
    ".A blue lamp with a white shade on the sofa table.",
)


@pytest.mark.parametrize("nesting", ["all", "flat", "full"])
def test_no_phrase_begins_or_ends_with_a_conjunction_or_punctuation(nesting: str) -> None:
    for parse in parse_texts(list(SLIPS), SLIPS, nesting=nesting):
        assert parse.phrases, parse.id
        spans = [(p.start, p.end) for p in parse.phrases]
        spans += [span for r in parse.relations for span in (r.target, r.landmark)]
        assert len(set(spans[: len(parse.phrases)])) == len(parse.phrases)
        for start, end in spans:
            for edge in (parse.tokens[start].text, parse.tokens[end - 1].text):
                assert edge[0].isalnum() and edge.lower() not in ("and", "or", "but", "nor"), (
                    parse.id,
                    parse.text(start, end),
                )
        for p in parse.phrases:
            assert p.start <= p.root < p.end and parse.tokens[p.root].text[0].isalnum()


def test_trimming_keeps_what_belongs_to_a_phrase() -> None:
    assert "A kitchen with pale wooden cabinets" in phrases(SLIPS[0])
    assert "a small table with three black chairs" in phrases(SLIPS[3])
    assert "the bed and the door" in phrases("The lamp is between the bed and the door.")
    assert "50 % wood" in phrases("The floor is 50 % wood.")


def test_the_root_is_the_head_noun() -> None:
    parse = parse_texts(["x"], ["There is a window with white lace curtains."])[0]
    assert [parse.tokens[p.root].text for p in parse.phrases] == ["window", "window", "curtains"]


def test_an_unknown_nesting_names_the_choices() -> None:
    with pytest.raises(AtlasError, match="nesting: 'deep' is unknown; choose one of all, flat, full"):
        phrases("a lamp", "deep")
