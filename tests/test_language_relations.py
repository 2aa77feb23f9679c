"""Target-relation-landmark triples: each sentence with the triple that a person reads in it."""

from __future__ import annotations

import pytest

from attention_atlas.language.parse import parse_texts
from attention_atlas.language.spatial_terms import terms

TRL, RLT = "target-relation-landmark", "relation-landmark-target"


def triples(text: str) -> list[tuple[str, str, str, str, str]]:
    parse = parse_texts(["x"], [text])[0]
    return [
        (parse.text(*r.target), parse.text(*r.relation), parse.text(*r.landmark), r.type, r.order)
        for r in parse.relations
    ]


@pytest.mark.parametrize(
    ("text", "triple"),
    [
        ("A lamp stands on the table.", ("A lamp", "on", "the table", "region", TRL)),
        ("The image is above the bed.", ("The image", "above", "the bed", "direction", TRL)),
        ("The bed is far from the door.", ("The bed", "far from", "the door", "distance", TRL)),
        (
            "There is a red chair next to the round table.",
            ("a red chair", "next to", "the round table", "distance", TRL),
        ),
        ("The sofa is in front of the window.", ("The sofa", "in front of", "the window", "direction", TRL)),
        ("A table is in the center of the room.", ("A table", "in the center of", "the room", "region", TRL)),
        (
            "There is a chair to the right of the desk.",
            ("a chair", "to the right of", "the desk", "direction", TRL),
        ),
        # Landmark first: kept, with its order.
        (
            "To the left of the bed there is a lamp.",
            ("a lamp", "To the left of", "the bed", "direction", RLT),
        ),
        ("On top of the shelf is a vase.", ("a vase", "On top of", "the shelf", "region", RLT)),
        # What is located: the object of 'see' and 'has', the noun of a relative clause.
        ("I can see a bed by the wall.", ("a bed", "by", "the wall", "distance", TRL)),
        ("It has a rug under it.", ("a rug", "under", "it", "direction", TRL)),
        ("The lamp which is on the desk is red.", ("The lamp", "on", "the desk", "region", TRL)),
        # Both members of a coordination: as subject, and as what something lies between.
        ("A lamp and a clock are on the table.", ("A lamp and a clock", "on", "the table", "region", TRL)),
        (
            "The lamp is between the bed and the door.",
            ("The lamp", "between", "the bed and the door", "direction", TRL),
        ),
        (
            "There are books inside one of the shelves.",
            ("books", "inside", "one of the shelves", "region", TRL),
        ),
        ("A lot of books lie on the floor.", ("A lot of books", "on", "the floor", "region", TRL)),
        ("Lamps are hanging from the ceiling.", ("Lamps", "from", "the ceiling", "region", TRL)),
    ],
)
def test_one_triple(text: str, triple: tuple[str, ...]) -> None:
    assert triples(text) == [triple]


@pytest.mark.parametrize(
    "text",
    [
        "The light is turned on.",  # a particle
        "The walls are painted in red.",  # no place
        "The room has a bed in the corner.",  # Appendix B: a bare place word is no landmark
        "There is a window with white lace curtains.",  # 'with' is not spatial
        "The left wall is white.",
        "A painting made by an artist.",
        "The chair is made from wood.",
    ],
)
def test_no_triple(text: str) -> None:
    assert triples(text) == []


def test_triples_stay_within_a_sentence() -> None:
    text = "There is a room. On the floor, there is a rug."
    assert triples(text) == [("a rug", "On", "the floor", "region", RLT)]


def test_the_longest_expression_wins() -> None:
    table = terms()
    assert table["on", "top", "of"] == "region" and table["in", "front", "of"] == "direction"
    assert table["on", "the", "left", "of"] == table["to", "the", "far", "left", "of"] == "direction"
    assert set(table.values()) == {"region", "direction", "distance"}
    found = triples("The plant is on the left side of the couch.")
    assert [(r[1], r[3]) for r in found] == [("on the left side of", "direction")]
