"""Choosing examples for figures: half by a rule of the study, half at random, marked as such."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import numpy as np

AT_RANDOM, BY_RULE = "at random", "by rule"


def half_at_random(
    ranked: Sequence[str], pool: Iterable[str], count: int, seed: int
) -> list[tuple[str, str]]:
    """`count` ids, each with how it was chosen: alternately the next of `ranked` (BY_RULE) and one drawn from
    `pool` (AT_RANDOM), which also supplies an odd one. No id twice; fewer than `count` if there are not
    enough."""
    by_rule = list(dict.fromkeys(ranked))[: count // 2]
    left = sorted(set(pool) - set(by_rule))
    order = np.random.default_rng([seed, len(left)]).permutation(len(left))
    drawn = [left[i] for i in order[: count - len(by_rule)]]
    turns = zip_longest(((i, BY_RULE) for i in by_rule), ((i, AT_RANDOM) for i in drawn))
    return [one for turn in turns for one in turn if one is not None]
