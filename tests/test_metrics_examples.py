"""Examples for figures: half by rule, half at random, and every figure with examples states it."""

from __future__ import annotations

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.measures.examples import AT_RANDOM, BY_RULE, half_at_random

POOL = [f"e{i}" for i in range(10)]
# Functions that draw single examples, and the argument that counts from the first of them.
SINGLE = {"side_by_side": "example", "words_by_layers": "question", "heads": "caption"}


def test_in_turn_by_rule_and_at_random() -> None:
    found = half_at_random(["e7", "e3", "e1"], POOL, 4, seed=0)
    assert [how for _, how in found] == [BY_RULE, AT_RANDOM, BY_RULE, AT_RANDOM]
    assert [found[0][0], found[2][0]] == ["e7", "e3"] and len({i for i, _ in found}) == 4
    assert half_at_random(["e7", "e3", "e1"], reversed(POOL), 4, seed=0) == found, (
        "the order of the pool counts"
    )


def test_every_example_can_be_drawn_and_an_odd_one_is_random() -> None:
    drawn = [half_at_random(["e7"], POOL, 1, seed) for seed in range(200)]
    assert {one[0] for (one,) in drawn} == set(POOL) and {one[1] for (one,) in drawn} == {AT_RANDOM}
    three = half_at_random(["e7", "e3"], POOL, 3, seed=0)
    assert [how for _, how in three] == [BY_RULE, AT_RANDOM, AT_RANDOM]


def test_few_examples() -> None:
    assert half_at_random(["a"], ["a"], 4, 0) == [("a", BY_RULE)]
    assert sorted(i for i, _ in half_at_random(["a", "b", "c"], ["a", "b", "c"], 4, 0)) == ["a", "b", "c"]
    assert half_at_random([], [], 4, 0) == []


@pytest.mark.parametrize("path", sorted((ROOT / "conf").rglob("figure/*.yaml")), ids=str)
def test_at_least_half_of_the_examples_in_figures_are_random(path) -> None:
    """Shown files hold examples in turn by rule and at random, so odd numbers are random ones."""
    numbers = []
    figures = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    for entry in (value for value in figures.values() if isinstance(value, dict)):
        name = str(entry["_target_"]).rsplit(".", 1)[1] if "_target_" in entry else ""
        if name in SINGLE:
            numbers.append(int(entry.get(SINGLE[name], 0)))
        elif name == "top_objects":
            numbers += entry.get("captions", [0, 1])
    assert 2 * sum(n % 2 for n in numbers) >= len(numbers), numbers
