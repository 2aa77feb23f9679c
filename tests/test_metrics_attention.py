"""Each metric against planted attention with a known answer, a hand-worked example, and a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_naive import (
    KINDS,
    POS,
    SETS,
    WORDS,
    MemoryStore,
    attention,
    axes,
    naive_entropy,
    naive_share,
    one,
    parse,
    random_study,
    value,
)

from attention_atlas.language.parsed import SpatialRelation
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.item import Item, Link
from attention_atlas.measures.metric import measure_all
from attention_atlas.measures.pos import PosShare
from attention_atlas.measures.table import head_matrix, select
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.grounding.relations import REGIONS, TEXT, Relations


def test_grounding_recovers_planted_shares_exactly():
    """Head (l, h) puts share s[l, h] of every phrase row on the linked regions, the rest elsewhere."""
    share_LH = np.array([[0.1, 0.35], [0.5, 0.9]])
    cross = np.zeros((2, 2, 8, 4), np.float32)
    cross[:, :, :3, 0] = share_LH[..., None] / 2  # the red cup -> regions 0, 1
    cross[:, :, :3, 1] = share_LH[..., None] / 2
    cross[:, :, :3, 3] = 1 - share_LH[..., None]
    cross[:, :, 5:7, 2] = share_LH[..., None]  # a table -> region 2
    cross[:, :, 5:7, 0] = 1 - share_LH[..., None]
    cross[:, :, 3:5, 3] = 1
    cross[:, :, 7, 2] = 1  # the row that generates EOS must not count
    table = Grounding()(one({"cross": cross}, [Link(0, 3, (0, 1)), Link(5, 7, (2,))]))
    for condition in ("phrases", "ratio_of_sums"):
        rows = select(table, measure="grounding", condition=condition)
        np.testing.assert_allclose(head_matrix(rows), share_LH, atol=1e-7)
        assert value(rows, layer=1) == pytest.approx(0.7, abs=1e-7)
        assert value(rows) == pytest.approx(share_LH.mean(), abs=1e-7)
        assert set(rows["n"]) == {2}
    # Uniform attention: two of four regions, one of four -> mean 3/8; pooled (3*2/4 + 2*1/4) / 5.
    phrases = select(table, measure="grounding", condition="phrases")
    assert phrases["chance"].iloc[0] == pytest.approx(3 / 8)
    pooled = select(table, measure="grounding", condition="ratio_of_sums")
    assert pooled["chance"].iloc[0] == pytest.approx((3 * 0.5 + 2 * 0.25) / 5)


def test_grounding_mean_over_phrases_and_ratio_of_sums_by_hand():
    """Cross rows of 3 + 2 words, shares 0.2 and 0.7: mean 0.45; pooled (3*0.2 + 2*0.7) / 5 = 0.4."""
    cross = np.full((1, 1, 8, 2), 0.5, np.float32)
    cross[0, 0, :3] = [0.2, 0.8]
    cross[0, 0, 5:7] = [0.3, 0.7]
    table = Grounding()(one({"cross": cross}, [Link(0, 3, (0,)), Link(5, 7, (1,))]))
    assert value(table, measure="grounding", condition="phrases") == pytest.approx(0.45)
    assert value(table, measure="grounding", condition="ratio_of_sums") == pytest.approx(0.4)


def held_out_study(share_IH):
    """One phrase per image; head h puts share_IH[i, h] of it on region 0."""
    kinds = {"cross": KINDS["cross"]}
    attn, axis, parses, links = {}, {}, {}, {}
    for i, share_H in enumerate(share_IH):
        id_ = f"e{i:03d}"
        cross = np.zeros((1, len(share_H), 8, 2), np.float32)
        cross[0, :, :, 0] = np.asarray(share_H)[:, None]
        cross[0, :, :, 1] = 1 - cross[0, :, :, 0]
        attn[id_], axis[id_], parses[id_] = {"cross": cross}, axes(WORDS, 2), parse(id_)
        links[id_] = [Link(0, 3, (0,))]
    return AnnotatedAttention(MemoryStore(kinds, attn, axis), parses, links=links, resamples=200)


def test_held_out_head_is_picked_on_the_other_images():
    """Even images prefer head 0, odd ones head 1: each half picks the head that fails on the other."""
    table = Grounding()(held_out_study([[0.9, 0.2], [0.1, 0.8], [0.7, 0.4], [0.3, 0.6]]))
    held = select(table, measure="grounding_held_out", condition="phrases")
    # Head 1 (best on images 1 and 3) on images 0 and 2: 0.2, 0.4; head 0 on images 1 and 3: 0.1, 0.3.
    assert len(held) == 1 and value(held) == pytest.approx(0.25, abs=1e-6)
    assert held["n"].iloc[0] == 4 and held["chance"].iloc[0] == pytest.approx(0.5)
    assert value(table, 0, 0, measure="grounding", condition="phrases") == pytest.approx(0.5, abs=1e-6)


def test_held_out_head_does_not_beat_chance_by_picking():
    """400 heads of noise: the highest lies above chance by its own interval, the held-out one does not."""
    share_IH = np.random.default_rng(0).random((60, 400))
    table = Grounding()(held_out_study(share_IH))
    heads = select(table, measure="grounding", condition="phrases", layer=0)
    best = heads.loc[heads[heads["head"] >= 0]["value"].idxmax()]
    held = select(table, measure="grounding_held_out", condition="phrases").iloc[0]
    assert best["ci_low"] > best["chance"]
    assert held["ci_low"] < held["chance"] < held["ci_high"]


def test_area_chance_weighs_regions_by_their_boxes():
    cross = np.full((1, 1, 8, 4), 0.25, np.float32)
    study = one({"cross": cross}, [Link(0, 3, (0, 3))], areas=lambda image: np.array([10.0, 20, 30, 40]))
    table = Grounding()(study)
    assert value(table, measure="grounding_chance", condition="area") == pytest.approx(0.5)
    assert value(table, measure="grounding_chance", condition="uniform") == pytest.approx(0.5)
    study = one({"cross": cross}, [Link(0, 3, (0,))], areas=lambda image: np.array([10.0, 20, 30, 40]))
    assert value(Grounding()(study), measure="grounding_chance", condition="area") == pytest.approx(0.1)


def test_entropy_of_uniform_is_one_and_of_a_point_is_zero():
    n = 8
    attn = np.zeros((1, 3, n, n), np.float32)
    attn[0, 0] = np.tri(n) / np.arange(1, n + 1)[:, None]  # uniform over visible
    attn[0, 1] = np.eye(n)  # one key
    # Half on BOS, the rest on two words: after dropping BOS and renormalising, log 2 / log(visible words).
    attn[0, 2, :, 0] = 0.5
    attn[0, 2, 2:, 1] = attn[0, 2, 2:, 2] = 0.25
    attn[0, 2, 1, 1] = 0.5
    attn[0, 2, 0, 0] = 1
    table = Entropy(kinds=("decoder_self",))(one({"decoder_self": attn}))
    values = head_matrix(table)[0]
    # Rows 2..6 see 2..6 words (row q sees q words without BOS; row 7 generates EOS).
    expected = np.mean([math.log(2) / math.log(k) for k in range(2, 7)])
    np.testing.assert_allclose(values, [1, 0, expected], atol=1e-6)
    assert set(table["n"]) == {5}
    kept = Entropy(kinds=("decoder_self",), bos="keep")(one({"decoder_self": attn}))
    # With BOS row q sees q + 1 keys; rows 1..6 count.
    rows = [math.log(2) / math.log(2)] + [
        (0.5 * math.log(2) + 0.5 * math.log(4)) / math.log(k) for k in range(3, 8)
    ]
    np.testing.assert_allclose(head_matrix(kept)[0], [1, 0, np.mean(rows)], atol=1e-6)


def test_entropy_counts_what_is_visible_not_what_survived_float16():
    """A weight that float16 flushed to 0 is still a visible key."""
    cross = np.zeros((1, 1, 8, 4), np.float32)
    cross[..., :2] = 0.5
    table = Entropy(kinds=("cross",))(one({"cross": cross}))
    assert value(table) == pytest.approx(math.log(2) / math.log(4))


def test_paper_variant_of_the_entropy_mixes_the_bases():
    cross = np.full((1, 1, 8, 4), 0.25, np.float32)
    table = Entropy(kinds=("cross",), normaliser="paper")(one({"cross": cross}))
    assert value(table) == pytest.approx(math.log(4) / math.log2(4))
    assert table["chance"].iloc[0] == pytest.approx(math.log(2))


def test_pos_shares_recover_planted_attention():
    """Every word's row gives BOS 0.2 and, where it sees both sets, 0.6 to nouns' set and 0.2 to verbs'."""
    n = 8
    attn = np.zeros((1, 1, n, n), np.float32)
    for q in range(n):
        attn[0, 0, q, 0] = 1.0 if q == 0 else 0.2
        objects = [k for k in range(1, q + 1) if POS[k - 1] in SETS["DET+ADJ+NOUN"]]
        relations = [k for k in range(1, q + 1) if POS[k - 1] in SETS["VERB+ADP"]]
        if objects:
            attn[0, 0, q, objects[0]] = 0.6 if relations else 0.8
        if relations:
            attn[0, 0, q, relations[-1]] = 0.2
    study = one({"decoder_self": attn})
    table = PosShare(list(SETS.values()))(study)
    # Words 1..6 have rows with an earlier word; words 1..3 see objects only, 4..6 see both: 0.75 / 0.25.
    assert value(table, condition="DET+ADJ+NOUN") == pytest.approx((3 * 1 + 3 * 0.75) / 6, abs=1e-6)
    assert value(table, condition="VERB+ADP") == pytest.approx(3 * 0.25 / 6, abs=1e-6)
    assert set(select(table, condition="VERB+ADP")["n"]) == {6}
    kept = PosShare(list(SETS.values()), bos="keep")(study)
    # The same words, but shares of the whole row.
    assert value(kept, condition="DET+ADJ+NOUN") == pytest.approx((3 * 0.8 + 3 * 0.6) / 6, abs=1e-6)
    each = select(table, layer=-1, head=-1, condition=["DET", "ADJ", "NOUN"])["value"].sum()
    assert each == pytest.approx(value(table, condition="DET+ADJ+NOUN"))
    assert not len(select(table, condition="PRON"))  # does not occur


def test_pos_chance_is_the_share_of_visible_words():
    uniform = np.tri(8, dtype=np.float32) / np.arange(1, 9, dtype=np.float32)[:, None]
    table = PosShare(list(SETS.values()))(one({"decoder_self": uniform[None, None]}))
    rows = select(table, layer=-1, measure="pos_share")
    np.testing.assert_allclose(rows["value"], rows["chance"], atol=1e-6)
    # Words 1..6 see 1..6 words, of which objects: 1,2,3,3,3,4.
    assert value(table, condition="DET+ADJ+NOUN") == pytest.approx(
        np.mean([1, 1, 1, 3 / 4, 3 / 5, 4 / 6]), abs=1e-6
    )


def test_pos_correlation_over_heads():
    """With words of two sets only, what one set gets the other loses: r = -1 over heads."""
    words, pos = ["cup", "on", "cup", "on"], ["NOUN", "ADP", "NOUN", "ADP"]
    rng = np.random.default_rng(1)
    attn = attention(rng, 3, 4, 4, 2, kinds=("decoder_self",))
    table = PosShare(list(SETS.values()), correlate=list(SETS))(
        one(attn, words=words, the_parse=parse("e", words, pos, [0] * 4, []))
    )
    assert value(table, measure="pos_correlation", against="VERB+ADP") == pytest.approx(-1, abs=1e-6)
    assert select(table, measure="pos_correlation")["n"].iloc[0] == 12
    assert value(table, measure="pos_correlation", against="VERB+ADP", statistic="p") < 1e-10


def test_relation_directions_recover_planted_attention():
    """the red cup [0,3) stands on [4,5) a table [5,7); regions: cup 0, table 1, other 2."""
    n = 8
    text = np.zeros((1, 1, n, n), np.float32)
    text[..., 0] = 1
    text[0, 0, 4] = 0
    text[0, 0, 4, [0, 1, 3, 4]] = [0.5, 0.1, 0.15, 0.25]  # "on": BOS, the, cup | stands
    for q in (5, 6):
        text[0, 0, q] = 0
        text[0, 0, q, [0, 2, 5, 4]] = [0.2, 0.32, 0.16, 0.32]  # landmark: red 0.32, on 0.16, stands 0.32
    cross = np.zeros((1, 1, n, 3), np.float32)
    cross[0, 0, :3] = [0.6, 0.3, 0.1]  # target words
    cross[0, 0, 3] = [0, 0, 1]
    cross[0, 0, 4] = [0.2, 0.7, 0.1]  # relation
    cross[0, 0, 5:] = [0.25, 0.5, 0.25]  # landmark
    study = one({"decoder_self": text, "cross": cross}, [Link(0, 3, (0,)), Link(5, 7, (1,))])
    table = Relations()(study)
    expected = {
        "a rel→target": 0.25 / 0.5,
        "b land→rel": 0.2,
        "c land→target": 0.4,
        "d land→target+rel": 0.6,
        "e rel→target": 0.2,
        "f rel→land": 0.7,
        "g land→target": 0.25,
        "h target→land": 0.3,
    }
    for condition, share in expected.items():
        assert value(table, condition=condition) == pytest.approx(share, abs=1e-6), condition
    kept = Relations(bos="keep")(study)
    assert value(kept, condition="a rel→target") == pytest.approx(0.25, abs=1e-6)
    # Uniform over the visible words: "on" sees the, red, cup, stands -> 3 of 4.
    assert select(table, condition="a rel→target")["chance"].iloc[0] == pytest.approx(3 / 4)
    assert select(table, condition="e rel→target")["chance"].iloc[0] == pytest.approx(1 / 3)


def test_triples_in_another_order_are_skipped_or_count_as_zero():
    turned = [
        SpatialRelation((5, 7), (3, 5), (0, 3), "direction"),
        SpatialRelation((0, 3), (4, 5), (5, 7), "region"),
    ]
    rng = np.random.default_rng(0)
    study = one(attention(rng, 1, 2, 7, 3), [Link(0, 3, (0,))], the_parse=parse(relations=turned))
    skip, zero = Relations()(study), Relations(order="zero")(study)
    a = {"layer": -1, "head": -1, "condition": "a rel→target"}
    assert select(skip, **a)["n"].iloc[0] == 1 and select(zero, **a)["n"].iloc[0] == 2
    assert select(zero, **a)["value"].iloc[0] == pytest.approx(
        select(skip, **a)["value"].iloc[0] / 2, rel=1e-5
    )
    only = Relations(types=("direction",), order="zero")(study)
    assert select(only, **a)["value"].iloc[0] == pytest.approx(0)


def test_links_of_relation_parts_match_by_words_then_by_head_word():
    item = Item("e", 0, parse(), [Link(1, 3, (4,)), Link(5, 7, (2,))])
    assert item.link_of((5, 7)).regions == (2,)
    assert item.link_of((0, 3)).regions == (4,)  # "the red cup" ~ "red cup": same head word "cup"
    assert item.link_of((3, 4)) is None


@pytest.mark.parametrize("bos", ["drop", "keep"])
def test_every_metric_equals_a_plain_loop(bos):
    study = random_study()
    table = measure_all(
        {"g": Grounding(bos=bos), "e": Entropy(bos=bos), "p": PosShare(list(SETS.values()), bos=bos)}, study
    )
    relations = Relations(bos=bos)(study)
    for layer in range(2):
        for head in range(3):
            expected = naive(study, layer, head, bos)
            for (metric, kind, condition), wanted in expected.items():
                source = relations if metric == "relations" else table
                got = value(source, layer, head, measure=metric, kind=kind, condition=condition)
                assert got == pytest.approx(wanted, rel=2e-5), (metric, kind, condition)
            assert len(expected) == 6 + len(TEXT) + len(REGIONS)


def naive(study, layer, head, bos):
    """All metrics of one head by loops over examples, phrases, words and keys."""
    found = {}

    def put(key, num, den):
        a, b = found.get(key, (0.0, 0.0))
        found[key] = (a + num, b + den)

    for id_ in study.ids:
        item, store = study.item(id_), study.store
        target, source, region = (store.axis(id_, a) for a in ("target", "source", "region"))
        text = store.read(id_, "decoder_self")[layer, head]
        cross = store.read(id_, "cross")[layer, head]
        for link in item.links:
            words = range(link.start, link.end)
            num, den = naive_share(cross, target, region, words, link.regions, bos, False)
            put(("grounding", "cross", "phrases"), num / den, 1)
            put(("grounding", "cross", "ratio_of_sums"), num, den)
        put(("entropy", "decoder_self", "visible"), *naive_entropy(text, target, source, bos, True))
        put(("entropy", "cross", "visible"), *naive_entropy(cross, target, region, bos, False))
        for word in range(item.words):
            for name, tags in SETS.items():
                keys = [k for k, w in enumerate(source.word) if w >= 0 and item.parse.tokens[w].pos in tags]
                num, den = naive_share(text, target, source, [word], keys, bos, True)
                if word > 0:
                    put(("pos_share", "decoder_self", name), num / den, 1)
        for relation in item.parse.relations:
            for condition, (generated, attended) in TEXT.items():
                span = getattr(relation, generated)
                if any(getattr(relation, part)[1] > span[0] for part in attended):
                    continue
                words = {w for part in attended for w in range(*getattr(relation, part))}
                keys = [k for k, w in enumerate(source.word) if w in words]
                num, den = naive_share(text, target, source, range(*span), keys, bos, True)
                if den:
                    put(("relations", "decoder_self", condition), num / den, 1)
            for condition, (generated, attended) in REGIONS.items():
                link = item.link_of(getattr(relation, attended))
                if link:
                    words = range(*getattr(relation, generated))
                    num, den = naive_share(cross, target, region, words, link.regions, bos, False)
                    put(("relations", "cross", condition), num / den, 1)
    return {key: num / den for key, (num, den) in found.items()}
