"""Official VQA accuracy and normalisation against hand-worked examples."""

import doctest
import itertools

import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.vqa import accuracy, normalise, types
from attention_atlas.vqa.accuracy import answer_list, consensus, soft_targets, vqa_accuracy


@pytest.mark.parametrize("module", [accuracy, normalise, types])
def test_examples_in_the_docstrings(module):
    found = doctest.testmod(module)
    assert found.attempted and not found.failed


# With n of ten people: leaving one of the n out, n-1 others remain (n times); leaving another out, n (10-n
# times).
BY_HAND = {0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9, 4: 1.0, 10: 1.0}


@pytest.mark.parametrize("count, expected", BY_HAND.items())
def test_accuracy_by_hand(count, expected):
    people = ["red"] * count + [f"no {n}" for n in range(10 - count)]
    assert vqa_accuracy("red", people) == pytest.approx(expected)


def test_accuracy_is_the_mean_over_subsets_of_nine():
    people = ["left", "left", "on the left", "right", "left side", "left", "middle", "right", "left.", "Left"]
    truth = [normalise.normalise(p) for p in people]
    for answer in ("left", "right", "middle", "up"):
        naive = [
            min(sum(p == answer for p in nine) / 3, 1)
            for nine in itertools.combinations(truth, len(truth) - 1)
        ]
        assert vqa_accuracy(answer, people) == pytest.approx(sum(naive) / len(naive))


def test_answers_are_normalised_only_when_people_differ():
    same = ["the sofa"] * 10
    assert vqa_accuracy("sofa", same) == 0.0
    assert vqa_accuracy("sofa", [*same[:9], "sofa"]) == 1.0


def test_published_evaluation_keeps_articles_of_the_truth():
    people = ["two"] * 9 + ["3"]
    assert vqa_accuracy("2", people) == 1.0
    assert vqa_accuracy("2", people, truth_articles=False) == 0.0


@pytest.mark.parametrize(
    "text, expected",
    [
        ("The two dogs dont bark!", "2 dogs don't bark"),
        ("none", "0"),
        ("black/white", "black white"),
        ("1,000", "1000"),
        ("2.5 m.", "2.5 m"),
        ("a  table,\nan apple", "table apple"),
        ("yes?", "yes"),
        ("its", "its"),
    ],
)
def test_normalisation(text, expected):
    assert normalise.normalise(text) == expected


def test_soft_targets_count_people_after_normalisation():
    people = ["two", "2", "2.", "3", "4", "4", "4", "4", "five", "many"]
    index = {"2": 0, "3": 1, "4": 2, "5": 3}
    assert soft_targets(people, index) == pytest.approx({0: 0.9, 1: 0.3, 2: 1.0, 3: 0.3})


def test_answer_list_counts_questions_and_breaks_ties_by_name():
    questions = [
        ["red"] * 10,
        ["red"] * 6 + ["blue"] * 4,
        ["green"] * 10,
        ["blue"] * 10,
        ["blue"] * 5 + ["red"] * 5,
    ]
    assert answer_list(questions[:4]) == ["red", "blue", "green"]
    assert answer_list(questions, min_count=2) == ["blue", "red"]
    assert answer_list(questions[:4], size=2) == ["red", "blue"]
    assert consensus(["b", "c", "c", "b"]) == "b"
    with pytest.raises(AtlasError, match="lower min_count"):
        answer_list(questions, min_count=9)


def test_no_people_is_an_error():
    with pytest.raises(AtlasError, match="ten people"):
        vqa_accuracy("red", [])


def test_official_types_are_65_and_the_longest_wins():
    assert len(types.OFFICIAL) == len(set(types.OFFICIAL)) == 65
    for question, official, first, group in (
        ("What color is the wall?", "what color is the", "what", "what color"),
        ("What color hair has he?", "what color", "what", "what color"),
        ("How many people are in the room?", "how many people are in", "how", "how many"),
        ("Where is it?", "none of the above", "where", "where"),
        ("Is there a cat?", "is there a", "is", "is"),
        ("Isn't it?", "none of the above", "isn't", "other"),
        ("Why is the man sad?", "why is the", "why", "why"),
        ("Does this work?", "does this", "does", "does"),
    ):
        assert types.official_type(question) == official
        assert types.first_word(question) == first
        assert types.group_of(question) == group
    assert types.first_word("?") == "" and types.official_type("?") == types.NONE
