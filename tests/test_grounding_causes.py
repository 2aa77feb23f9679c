"""Grounding by cause: gold links, phrases with a region, the probability of the head word; by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_naive import KINDS, WORDS, MemoryStore, axes, one, parse, value

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.item import Link
from attention_atlas.measures.table import measured, select
from attention_atlas.recording import Axis
from attention_atlas.studies.grounding.grounding import Grounding, ranges

HELD, CHANCE = "grounding_held_out", "grounding_chance"
LIMITS = [0.1, 0.5]


def with_logprobs(axis, p_W):
    """The axes of one example whose words have these probabilities."""
    target = axis["target"]
    logprob = [*(math.log(p) for p in p_W), -1.0]
    return axis | {"target": Axis(target.tokens, target.roles, target.word, logprob)}


def study(share_IPN, p_IW, gold=True, logprobs=True, areas=None):
    """One example per image with two phrases: "the red cup" linked to region 0 and "a table" linked to region
    1. By gold, the cup is region 2 and the table is in no region. Row p of share_IPN (I,P,N) is the attention
    of phrase p; head 1 attends uniformly."""
    attn, axis, parses, links, right = {}, {}, {}, {}, {}
    for i, share_PN in enumerate(np.asarray(share_IPN, np.float32)):
        id_, regions = f"e{i}", share_PN.shape[1]
        cross = np.full((1, 2, 8, regions), 1 / regions, np.float32)
        cross[0, 0, :3], cross[0, 0, 5:7] = share_PN
        attn[id_], parses[id_] = {"cross": cross}, parse(id_)
        axis[id_] = with_logprobs(axes(WORDS, regions), p_IW[i]) if logprobs else axes(WORDS, regions)
        links[id_], right[id_] = [Link(0, 3, (0,)), Link(5, 7, (1,))], [Link(0, 3, (2,))]
    store = MemoryStore({"cross": KINDS["cross"]}, attn, axis)
    more = {"areas": areas, "resamples": 200, "gold": right if gold else None}
    return AnnotatedAttention(store, parses, links=links, **more)


# Attention of "the red cup" and of "a table" over four regions, in two images.
SHARES = [[[0.1, 0.2, 0.6, 0.1], [0.3, 0.5, 0.1, 0.1]], [[0.2, 0.1, 0.4, 0.3], [0.38, 0.32, 0.2, 0.1]]]
# The head words are "cup" (2) and "table" (6); the others must not count.
P = [[0.9, 0.01, 0.05, 0.9, 0.9, 0.01, 0.5], [0.01, 0.01, 0.8, 0.9, 0.9, 0.9, 0.3]]
AREAS = lambda image: np.array([10.0, 20, 30, 40])  # noqa: E731


def head(table, **where):
    """The value of head 0, which has the planted attention."""
    return value(table, 0, 0, measure="grounding", condition="phrases", **where)


def test_settings_and_probabilities_by_hand():
    table = Grounding(probability=LIMITS)(study(SHARES, P, areas=AREAS))
    assert head(table) == pytest.approx((0.1 + 0.5 + 0.2 + 0.32) / 4)
    assert head(table, setting="linkable") == pytest.approx((0.1 + 0.2) / 2)
    assert head(table, setting="gold links") == pytest.approx((0.6 + 0.4) / 2)
    # cup .05 and .8, table .5 and .3: a limit belongs to the range above it.
    assert head(table, group="p < 0.1") == pytest.approx(0.1)
    assert head(table, group="0.1 ≤ p < 0.5") == pytest.approx(0.32)
    assert head(table, group="p ≥ 0.5") == pytest.approx((0.5 + 0.2) / 2)
    assert head(table, setting="gold links", group="p ≥ 0.5") == pytest.approx(0.4)
    assert head(table, setting="linkable", group="p < 0.1") == pytest.approx(0.1)
    assert not len(select(table, setting="gold links", group="0.1 ≤ p < 0.5"))  # only "table", without gold
    counts = {("", ""): 4, ("linkable", ""): 2, ("gold links", ""): 2, ("", "p ≥ 0.5"): 2, ("", "p < 0.1"): 1}
    for (setting, group), n in counts.items():
        rows = measured(table, measure="grounding", condition="phrases", setting=setting, group=group)
        assert set(rows["n"]) == {n}, (setting, group)


def test_both_chance_levels_of_each_setting():
    table = Grounding(probability=LIMITS)(study(SHARES, P, areas=AREAS))
    area = {"measure": CHANCE, "condition": "area"}
    assert value(table, **area) == pytest.approx((0.1 + 0.2) / 2)
    assert value(table, **area, setting="linkable") == pytest.approx(0.1)
    assert value(table, **area, setting="gold links") == pytest.approx(0.3)
    assert value(table, **area, setting="gold links", group="p ≥ 0.5") == pytest.approx(0.3)
    for setting in ("", "linkable", "gold links"):
        assert value(table, measure=CHANCE, condition="uniform", setting=setting) == pytest.approx(1 / 4)
        rows = measured(table, measure="grounding", setting=setting)
        assert set(rows["chance"]) == {0.25}


def test_held_out_heads_and_paired_differences():
    """Head 0 has gold shares .6 and .4 and head 1 always .25: each half chooses head 0."""
    table = Grounding(probability=LIMITS)(study(SHARES, P))
    assert value(table, measure=HELD, condition="phrases", setting="gold links") == pytest.approx(0.5)
    # With the linker's links the cup has .1 and .2, below the uniform head, which both halves choose.
    assert value(table, measure=HELD, setting="linkable") == pytest.approx(0.25)
    gap = measured(table, measure=HELD, setting="gold links", against="linkable", group="")
    assert len(gap) == 1 and gap["value"].iloc[0] == pytest.approx(0.25)
    # Resamples draw image 0 twice (.6 − .25), image 1 twice (.4 − .25) or both.
    assert (gap["ci_low"].iloc[0], gap["ci_high"].iloc[0]) == (pytest.approx(0.15), pytest.approx(0.35))
    assert (gap["n"].iloc[0], gap["chance"].iloc[0]) == (2, 0.0)
    # All linked phrases: head 0 has (.1 + .5) / 2 in image 0 and (.2 + .32) / 2 in image 1, both above .25.
    assert value(table, measure=HELD, condition="phrases") == pytest.approx(0.28)
    gap = measured(table, measure=HELD, setting="linkable", against="linked", group="")
    assert gap["value"].iloc[0] == pytest.approx(-0.03)


def test_the_difference_between_probabilities_is_paired():
    share_IPN = [[[0.5, 0.0, 0.5, 0.0], [0.1, 0.9, 0.0, 0.0]]] * 4
    p_W = [0.5, 0.5, 0.01, 0.5, 0.5, 0.5, 0.9]
    table = Grounding(probability=LIMITS)(study(share_IPN, [p_W] * 4))
    gap = measured(table, measure=HELD, group="p ≥ 0.5", against="p < 0.1")
    assert gap["value"].tolist() == pytest.approx([0.4])
    assert gap["ci_low"].iloc[0] == pytest.approx(0.4)  # all images are alike


def test_without_gold_links_or_probabilities_those_rows_are_left_out():
    plain = Grounding()(study(SHARES, P, gold=False))
    assert set(plain["setting"]) == {""} and set(plain["group"]) == {""}
    for table in (
        Grounding(probability=LIMITS)(study(SHARES, P, gold=False, logprobs=False)),
        measured(Grounding(probability=LIMITS)(study(SHARES, P)), against=""),
    ):
        rows = measured(table).reset_index(drop=True)
        assert rows.equals(plain)  # and the others are as before
    assert set(Grounding()(study(SHARES, P))["setting"]) == {"", "linkable", "gold links"}


def test_word_pieces_and_unknown_words():
    """The probability of a word is the product over its pieces; a word without one is in no range."""
    words = ["cup", "zyx"]
    target = Axis(["cu", "##p", "<unk>", "<eos>"], ["text"] * 3 + ["eos"], [0, 0, 1, -1])
    target.logprob = [math.log(0.5), math.log(0.1), math.nan, -1.0]
    region = Axis(["a", "b"], ["image"] * 2, [-1] * 2)
    cross = np.full((1, 1, 4, 2), 0.5, np.float32)
    cross[0, 0, 0], cross[0, 0, 1] = [0.2, 0.8], [0.4, 0.6]
    store = MemoryStore(
        {"cross": KINDS["cross"]}, {"e": {"cross": cross}}, {"e": {"target": target, "region": region}}
    )
    links = {"e": [Link(0, 1, (0,)), Link(1, 2, (0,))]}
    found = AnnotatedAttention(
        store, {"e": parse("e", words, ["NOUN"] * 2, [0, 1], [])}, links=links, resamples=5
    )
    table = Grounding(probability=LIMITS)(found)
    assert head(table, group="p < 0.1") == pytest.approx(0.3)
    assert set(measured(table, group=None)["group"]) == {"", "p < 0.1"}


def test_bad_settings_are_named():
    for limits in ([0.5, 0.1], [0.0], [0.5, 0.5], [1.5]):
        with pytest.raises(AtlasError, match=r"probability: .* give ascending limits within 0"):
            Grounding(probability=limits)
    assert ranges([]) == [] and ranges([0.5]) == ["p < 0.5", "p ≥ 0.5"]
    cross = {"cross": np.full((1, 1, 8, 2), 0.5, np.float32)}
    with pytest.raises(AtlasError, match=r"links: example 'e': phrase \[5,9\] is outside its 7 words"):
        Grounding()(one(cross, [Link(0, 3, (0,))], gold={"e": [Link(5, 9, (0,))]}))
