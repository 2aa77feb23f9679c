"""Official VQA accuracy and normalisation against hand-worked examples and the published rule."""

import doctest
import hashlib
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attention_atlas.data import question_types as types
from attention_atlas.errors import AtlasError
from attention_atlas.measures import vqa_accuracy as accuracy
from attention_atlas.measures import vqa_normalise as normalise
from attention_atlas.measures.vqa_accuracy import answer_list, consensus, soft_targets, vqa_accuracy


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


# SHA-256 of the 120 published contractions as JSON of sorted pairs, taken from vqaEval.py itself.
PUBLISHED_TABLE = "3e5960526f62912d3b70896069c43c13d7c21be38d50ca28efbb9095b499454f"


def test_the_contractions_are_the_published_ones():
    pairs = json.dumps(sorted(normalise.CONTRACTIONS.items())).encode()
    assert len(normalise.CONTRACTIONS) == 120
    assert hashlib.sha256(pairs).hexdigest() == PUBLISHED_TABLE


def published(answer: str, people: list[str]) -> float:
    """The rule of vqaEval.py written out step by step, as literally as in the original."""
    marks = [*';/[]"{}()=+', "\\", *"_-><@`,?!"]
    numbers = dict(
        zip(
            ["none", "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"],
            "00123456789",
        )
    )
    numbers |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}

    def tidy(text):
        return text.replace("\n", " ").replace("\t", " ").strip()

    def process(text):
        out = text
        for p in marks:
            if (p + " " in text or " " + p in text) or re.search("(\\d)(\\,)(\\d)", text) is not None:
                out = out.replace(p, "")
            else:
                out = out.replace(p, " ")
        out = re.compile("(?!<=\\d)(\\.)(?!\\d)").sub("", out, count=int(re.UNICODE))
        words = [numbers.setdefault(w, w) for w in out.lower().split()]
        words = [w for w in words if w not in ("a", "an", "the")]
        return " ".join(normalise.CONTRACTIONS.get(w, w) for w in words)

    answer, people = tidy(answer), [tidy(p) for p in people]
    if len(set(people)) > 1:
        answer, people = process(answer), [process(p) for p in people]
    scores = []
    for i in range(len(people)):
        others = [p for j, p in enumerate(people) if j != i]
        scores.append(min(1, sum(p == answer for p in others) / 3))
    return sum(scores) / len(scores)


TRICKY = (
    *("hows it going", "how's it going", "lets go", "let's go", "Lets GO", "im here", "Im here", "I'm here"),
    *("its", "it's", "itll", "shes", "she's", "somebodyd", "somebody'd", "somebodys", "couldntve", "twas"),
    *("its 2.5", "2.5 m.", "2 .5", ".5", "5.", "no.", "U.S.", "u.s.a", "3.14.15", "." * 40, "a" + ". " * 40),
    *("1,000", "1,000!", "1, 000", "1 ,000", "one,two", "yes, no", "yes,no", "10,5-6", "a, b-c"),
    *("black/white", "black /white", "t-shirt", "t - shirt", "what?", "what ?", "(left)", "left (side)"),
    *("the", "The A an", "a man", "another", "None", "none", "TEN", "eleven", "ten-four", "zero", "one's"),
    *("12:30", "12:30 pm", "o'clock", "5 oclock", "dog's", "dogs'", "'hi'", '"hi"', "50%", "$5", "#1", "&"),
    *("on\tthe\ntable", "\n\nyes\t", "red  car", " red car ", "red\r\ncar", "", " ", "café", "don’t", "dont"),
    *normalise.CONTRACTIONS,
    *normalise.CONTRACTIONS.values(),
)


def test_accuracy_is_that_of_the_published_evaluation_on_tricky_answers():
    random = np.random.default_rng(0)
    for answer in TRICKY:
        forms = [answer, normalise.normalise(answer), answer.upper(), f"the {answer}", f"{answer}?"]
        for people in ([answer] * 10, [*[answer] * 5, *["other"] * 5]):
            for guess in (*forms, "other"):
                assert vqa_accuracy(guess, people) == pytest.approx(published(guess, people)), (
                    guess,
                    people,
                )
    for _ in range(1000):
        people = [str(t) for t in random.choice(TRICKY, size=4)]
        people = [str(p) for p in random.choice(people, size=10)]
        predicted = str(random.choice(people))
        assert vqa_accuracy(predicted, people) == pytest.approx(published(predicted, people)), (
            predicted,
            people,
        )


@given(st.lists(st.text("ab1,.-/? '\n\tdont", max_size=8), min_size=1, max_size=3), st.data())
def test_accuracy_is_that_of_the_published_evaluation_on_any_text(texts, data):
    people = data.draw(st.lists(st.sampled_from(texts), min_size=10, max_size=10))
    answer = data.draw(st.sampled_from([*texts, *map(normalise.normalise, texts)]))
    assert vqa_accuracy(answer, people) == pytest.approx(published(answer, people))


@pytest.mark.parametrize(
    "answer, person, expected",
    [
        ("hows it going", "how's it going", 1.0),
        ("let's go", "lets go", 0.0),
        ("somebody'd", "somebodyd", 1.0),
    ],
)
def test_contractions_by_hand(answer, person, expected):
    assert vqa_accuracy(answer, [person] * 9 + ["no"]) == expected


def test_number_words_and_articles_of_people_are_normalised_too():
    assert vqa_accuracy("2", ["two"] * 9 + ["3"]) == 1.0
    assert vqa_accuracy("sofa", ["the sofa"] * 9 + ["bed"]) == 1.0


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
