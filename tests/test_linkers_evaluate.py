"""Table 2: average precision and accuracy by hand, chance by enumeration, gold from a user's file."""

from __future__ import annotations

import itertools
from pathlib import Path

import linker_world as world
import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.language.parse import parse_texts
from attention_atlas.language.parsed import Parse
from attention_atlas.linking.evaluate import (
    LinkScores,
    average_precision,
    bootstrap_mean,
    chance_average_precision,
    evaluate,
)
from attention_atlas.linking.glove_add import GloveAddLinker
from attention_atlas.linking.gold import GoldLinker
from attention_atlas.linking.gold_file import read_gold_csv
from attention_atlas.regions.features_file import FeaturesFile

NAN = float("nan")


def ap(scores: list[float], relevant: list[int]) -> float:
    return average_precision(np.array(scores), np.isin(np.arange(len(scores)), relevant))


def test_average_precision_by_hand() -> None:
    assert ap([0.9, 0.8, 0.7, 0.6], [0]) == 1.0
    # Ranks 1 and 3: 1/1 * 1/2 + 2/3 * 1/2.
    assert ap([0.9, 0.8, 0.7, 0.6], [0, 2]) == pytest.approx(5 / 6)
    assert ap([0.6, 0.9, 0.7], [0]) == pytest.approx(1 / 3)
    # Two regions tie at the top and one of them is right: precision at their common cut-off is 1/2.
    assert ap([0.9, 0.9, 0.1], [0]) == ap([0.9, 0.9, 0.1], [1]) == 0.5
    assert ap([NAN, 0.2, 0.1], [0]) == pytest.approx(1 / 3)
    with pytest.raises(AtlasError, match="no region is relevant"):
        ap([0.1], [])


def test_average_precision_is_the_one_of_scikit_learn() -> None:
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(5)
    for _ in range(50):
        scores = rng.integers(0, 8, 36) / 8  # many ties
        relevant = rng.random(36) < 0.1
        relevant[3] = True
        expected = average_precision_score(relevant, scores)
        assert average_precision(scores, relevant) == pytest.approx(expected)


@pytest.mark.parametrize(("relevant", "regions"), [(1, 1), (1, 5), (2, 5), (3, 4), (5, 5)])
def test_chance_is_the_mean_over_all_orders(relevant: int, regions: int) -> None:
    orders = itertools.permutations(range(regions))
    expected = np.mean([ap(list(order), list(range(relevant))) for order in orders])
    assert chance_average_precision(relevant, regions) == pytest.approx(expected)


@pytest.mark.parametrize(("right", "percent"), [(27, 13.78), (82, 41.84), (87, 44.39)])
def test_accuracy_counts_unlinkable_phrases_as_wrong(right: int, percent: float) -> None:
    # The paper: 196 phrases in ten paragraphs, 158 of them linkable.
    scores = LinkScores("m", "cos", regions=36)
    scores.image = [str(i % 10) for i in range(196)]
    scores.linkable = [i < 158 for i in range(196)]
    for values in (scores.right, scores.strict, scores.ap):
        values.extend([1.0] * right + [0.0] * (196 - right))
    scores.chance_right = scores.chance_ap = [1 / 36] * 158 + [0.0] * 38
    rows = {(r["measure"], r["condition"]): r for r in scores.rows(draws=50)}
    every, linkable = rows["accuracy", "all"], rows["accuracy", "linkable"]
    assert round(100 * float(every["value"]), 2) == percent and every["n"] == 196
    assert linkable["value"] == right / 158 and linkable["n"] == 158
    assert linkable["chance"] == pytest.approx(1 / 36)
    assert every["ci_low"] < every["value"] < every["ci_high"]
    assert ("mAP@36", "all") in rows


def test_the_interval_resamples_whole_images() -> None:
    values, groups = np.array([0.0, 0.0, 0.0, 1.0]), np.array(["a", "a", "a", "b"])
    # Draws of two images: aa, ab, ba, bb give means 0, 1/4, 1/4, 1.
    assert bootstrap_mean(values, groups, draws=400) == (0.0, 1.0)
    assert bootstrap_mean(np.ones(5), np.arange(5), draws=10) == (1.0, 1.0)
    assert np.isnan(bootstrap_mean(np.zeros(0), np.zeros(0))).all()


@pytest.fixture
def features(tmp_path: Path) -> FeaturesFile:
    return FeaturesFile(world.write_features(tmp_path / "f.h5"))


@pytest.fixture(scope="module")
def parses() -> list[Parse]:
    return parse_texts(["ta", "tb"], [world.TEXT_A, world.TEXT_B])


def test_every_phrase_of_the_tiny_world(parses, features, tmp_path: Path) -> None:
    """By hand. a: 'Two red chairs' (regions 0, 1 right and linked), 'the round table' (2, right), 'It'
    (stopped), 'a lamp' (its object has no region: unlinkable). b: 'a lamp and a chair' (0 and 1 right),
    'a lamp' (0), 'a chair' (1), 'the room' (none)."""
    glove = GloveAddLinker("glove_add", str(world.write_glove(tmp_path / "g.txt")))
    scores = evaluate(parses, world.corpus(), features, glove)
    n = sum(len(p.phrases) for p in parses)
    names = [p.text(q.start, q.end) for p in parses for q in p.phrases]
    assert len(scores.right) == n and scores.regions == 4
    outcome = dict(zip(names, zip(scores.linkable, scores.right, scores.ap, strict=True), strict=True))
    # 'a lamp' occurs in both texts; the last one, of image b, is kept here.
    assert outcome["Two red chairs"] == (True, 1.0, 1.0)
    assert outcome["the round table"][:2] == (True, 1.0)
    assert outcome["It"] == (False, 0.0, 0.0)
    assert outcome["a lamp"] == outcome["a chair"] == (True, 1.0, 1.0)
    assert outcome["the room"] == (False, 0.0, 0.0)
    assert outcome["a lamp and a chair"] == (True, 1.0, 1.0)
    assert scores.linkable[names.index("a lamp")] is False
    coverage = scores.coverage()
    assert coverage["span"] == pytest.approx(7 / n) and sum(coverage.values()) == pytest.approx(1.0)


def test_the_gold_linker_is_always_right(parses, features) -> None:
    scores = evaluate(parses, world.corpus(), features, GoldLinker())
    rows = {(r["measure"], r["condition"]): r["value"] for r in scores.rows(draws=20)}
    assert rows["accuracy", "linkable"] == rows["accuracy_strict", "linkable"] == 1.0
    assert rows["mAP@4", "linkable"] == 1.0 and rows["accuracy", "all"] < 1.0


def test_gold_of_a_users_file(parses, features, tmp_path: Path) -> None:
    start, end = world.span(world.TEXT_A, "a lamp")
    (tmp_path / "gold.csv").write_text(
        f"example_id,start,end,regions,objects\nta,{start},{end},3,\nta,0,14,,0 1\nta,15,20,,\n"
    )
    gold = read_gold_csv(tmp_path / "gold.csv")
    assert gold["ta"][0].regions == {3} and gold["ta"][1].objects == {0, 1}
    glove = GloveAddLinker("glove_add", str(world.write_glove(tmp_path / "g.txt")))
    scores = evaluate(parses, world.corpus(gold=False), features, glove, gold)
    names = [parses[0].text(p.start, p.end) for p in parses[0].phrases]
    right = dict(zip(names, scores.right, strict=True))  # only text ta has gold
    assert right["a lamp"] == right["Two red chairs"] == 1.0 and sum(scores.linkable) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start,end,regions\n", "example_id: column is missing"),
        ("example_id,start,end\n", "regions: column is missing"),
        ("example_id,start,end,regions\n", "has no rows"),
        ("example_id,start,end,regions\nta,1,x,3\n", "line 2: end: 'x' is not one whole number"),
        ("example_id,start,end,regions\nta,5,5,3\n", "line 2: end: 5 is not after start 5"),
        ("example_id,start,end,regions\nta,1,5,3;4\n", "line 2: regions: '3;4' is not whole numbers"),
    ],
)
def test_a_bad_gold_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "gold.csv").write_text(text)
    with pytest.raises(AtlasError, match=message):
        read_gold_csv(tmp_path / "gold.csv")


def test_gold_that_does_not_fit(parses, features, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match="no such file"):
        read_gold_csv(tmp_path / "absent.csv")
    with pytest.raises(AtlasError, match="no parsed example of data set 'tiny' has gold links"):
        evaluate(parses, world.corpus(gold=False), features, GoldLinker())
    with pytest.raises(AtlasError, match=r"example 'tb' has no gold phrases"):
        broken = world.corpus()
        broken.examples[1].phrases = []
        list(evaluate(parses, broken, features, GoldLinker(), {"tb": [], "ta": []}).right)
    (tmp_path / "gold.csv").write_text("example_id,start,end,regions\nta,0,5,4\n")
    with pytest.raises(AtlasError, match="regions: 4 does not exist, the image has 4"):
        evaluate(parses, world.corpus(), features, GoldLinker(), read_gold_csv(tmp_path / "gold.csv"))
    (tmp_path / "gold.csv").write_text("example_id,start,end,regions\nzz,0,5,4\n")
    with pytest.raises(AtlasError, match="example_id: 'zz' is not in data set 'tiny'"):
        evaluate(parses, world.corpus(), features, GoldLinker(), read_gold_csv(tmp_path / "gold.csv"))
