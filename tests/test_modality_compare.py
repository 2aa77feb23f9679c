"""Study 2 over pieces and words, and the comparison of two models."""

from __future__ import annotations

import numpy as np
import pytest
from metrics_naive import MemoryStore, attention, random_study
from modality_naive import KIND, random_attention, sentence, study_of, value

from attention_atlas.errors import AtlasError
from attention_atlas.measures.annotated import AnnotatedAttention
from attention_atlas.measures.bootstrap import paired_difference, two_sided
from attention_atlas.measures.compare import compare
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.table import head_matrix, measured, select
from attention_atlas.recording import Axis
from attention_atlas.studies.modality.examples import choose, choose_half
from attention_atlas.studies.modality.locality import Locality
from attention_atlas.studies.modality.pos import PosMass
from attention_atlas.studies.modality.words import WordStore, word_axis


def pieces_store(seed=0):
    """The text "a redwood lamp" in pieces a | red | wood | lamp, with random attention."""
    target = Axis(["a", "red", "wood", "lamp", "<end>"], ["text"] * 4 + ["eos"], [0, 1, 1, 2, -1])
    source = Axis(["<end>", "a", "red", "wood", "lamp"], ["bos"] + ["text"] * 4, [-1, 0, 1, 1, 2])
    attn = attention(np.random.default_rng(seed), 2, 2, 4, 1, kinds=KIND)["decoder_self"]
    return MemoryStore(KIND, {"e": {"decoder_self": attn}}, {"e": {"target": target, "source": source}}), attn


def test_words_from_pieces():
    store, a = pieces_store()
    words = WordStore(store)
    assert words.axis("e", "target").tokens == ["a", "redwood", "lamp", "<end>"]
    assert words.axis("e", "source").word == [-1, 0, 1, 2]
    got = words.read("e", "decoder_self")
    expected = np.zeros((2, 2, 4, 4))
    expected[:, :, 0, 0] = a[:, :, 0, 0]
    for q in (1, 2):  # both pieces of "redwood": START and "a"; what "wood" gives "red" is its own word
        expected[:, :, 1, 0] += a[:, :, q, 0] / 2
        expected[:, :, 1, 1] += a[:, :, q, 1] / 2
    for row, q in ((2, 3), (3, 4)):
        expected[:, :, row, 0] = a[:, :, q, 0]
        expected[:, :, row, 1] = a[:, :, q, 1]
        expected[:, :, row, 2] = a[:, :, q, 2] + a[:, :, q, 3]
        expected[:, :, row, 3] = a[:, :, q, 4]
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert words.own("e", "decoder_self") == pytest.approx(float(a[:, :, 2, 2].mean() / 2 / 4), rel=1e-4)
    rows = [("a", "DET", "det", 2), ("redwood", "ADJ", "amod", 2), ("lamp", "NOUN", "ROOT", 2)]
    table = Entropy(kinds=["decoder_self"])(
        AnnotatedAttention(words, {"e": sentence(rows=rows)}, resamples=10)
    )
    assert table["value"].between(0, 1).all()


def test_word_level_store_passes_through():
    study = random_study()
    words = WordStore(study.store)
    for kind in study.store.kinds:
        np.testing.assert_array_equal(words.read("e1", kind), study.store.read("e1", kind))
    axis = study.store.axis("e1", "target")
    assert word_axis(axis)[0].tokens == axis.tokens


def test_white_space_pieces_are_left_out():
    axis = Axis(["a", " ", "b"], ["text", "special", "text"], [0, -1, 1])
    assert word_axis(axis)[0].tokens == ["a", "b"] and word_axis(axis)[1] == [0, -1, 1]


def test_differences_are_the_paired_bootstrap():
    first = study_of({f"e{i}": random_attention(i) for i in range(6)})
    second = study_of({f"e{i}": random_attention(50 + i, heads=4) for i in range(6)})
    metrics = {"pos_mass": PosMass(), "locality": Locality()}
    table = compare(metrics, {"a": first, "b": second}, [("a", "b")])
    assert set(table["model"]) == {"a", "b"} and set(table["against"]) == {"", "b"}
    alone = PosMass()(first)
    np.testing.assert_allclose(
        head_matrix(measured(table, model="a", measure="pos_mass", condition="NOUN")),
        head_matrix(select(alone, condition="NOUN")),
    )
    row = measured(table, model="a", against="b", measure="pos_mass", condition="NOUN", layer=-1).iloc[0]
    a, b = (value(table, model=m, measure="pos_mass", condition="NOUN") for m in "ab")
    assert row["value"] == pytest.approx(a - b) and row["ci_low"] <= row["value"] <= row["ci_high"]
    p = value(table, model="a", against="b", measure="pos_mass", statistic="p", condition="NOUN")
    assert 0 < p <= 1
    same = compare(metrics, {"a": first, "b": first}, [("a", "b")])
    zero = measured(same, against="b", measure="pos_mass")
    assert len(zero) and not zero["value"].any()
    assert set(measured(same, against="b", measure="pos_mass", statistic="p")["value"]) == {1.0}
    with pytest.raises(AtlasError, match="dump the same captions"):
        compare(metrics, {"a": first, "b": study_of({"e0": random_attention(0)})})
    with pytest.raises(AtlasError, match="no run 'c'"):
        compare(metrics, {"a": first, "b": second}, [("a", "c")])


def test_two_sided_p_as_in_paired_difference():
    rng = np.random.default_rng(0)
    num_a, num_b, den = rng.random((9, 1)) + 0.4, rng.random((9, 1)), np.ones((9, 1))
    counts = rng.multinomial(9, np.full(9, 1 / 9), size=300).astype(float)
    expected = paired_difference((num_a, den), (num_b, den), counts)
    drawn = (counts @ num_a / (counts @ den) - counts @ num_b / (counts @ den))[:, 0]
    assert two_sided(drawn) == pytest.approx(float(expected.p[0]))


def test_planted_difference_is_found():
    """The head puts 0.7 on the noun in one model, 0.3 in the other: every caption agrees, p is minimal."""

    def planted(share):
        attn = {}
        for i in range(8):
            a = np.zeros((1, 1, 9, 9))
            a[0, 0, 0, 0] = 1
            for q in range(1, 9):
                a[0, 0, q, 1] = 1.0 if q < 2 else 1 - share
                if q >= 2:
                    a[0, 0, q, 2] = share
            attn[f"e{i}"] = a
        return study_of(attn)

    table = compare({"pos": PosMass()}, {"x": planted(0.7), "y": planted(0.3)}, [("x", "y")])
    difference = value(table, model="x", against="y", measure="pos_mass", condition="NOUN")
    assert difference == pytest.approx(0.4 * 6 / 7, abs=1e-6)  # the row that sees one word is alike
    assert value(
        table, model="x", against="y", measure="pos_mass", statistic="p", condition="NOUN"
    ) == pytest.approx(2 / 201)


def test_captions_to_show_differ_and_have_many_nouns():
    nouns = lambda i, *words: sentence(i, [(w, "NOUN", "dep", 0) for w in words])  # noqa: E731
    parses = {
        p.id: p
        for p in (
            nouns("a", *"abcdefgh"),
            nouns("b", *"abcdefgh"),  # the same text again
            nouns("c", *"stuvwxyy"),
            nouns("d", *"mn"),  # too short
            nouns("e", *"abcdefghi"),
        )
    }
    assert choose(parses, 1) == ["e"]  # most nouns
    assert choose(parses, 4) == ["e", "c", "a", "d"]  # then new nouns, then the rest, the short one last
    assert choose(parses, 9) == ["e", "c", "a", "d"]
    # Half of them are drawn, and never a text that the rule chose under another id.
    found = [choose_half(parses, 4, seed) for seed in range(12)]
    assert all([how for _, how in one] == ["by rule", "at random"] * 2 for one in found)
    assert all([i for i, how in one if how == "by rule"] == ["e", "c"] for one in found)
    assert {i for one in found for i, how in one if how == "at random"} == {"a", "d"}
    assert choose_half(parses, 4, 5) == found[5]
    same = {i: nouns(i, *"abcdefgh") for i in "wxyz"}  # a captioner that writes one text
    assert len(choose_half(same, 4, 0)) == 4
