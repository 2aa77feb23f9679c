"""Metrics of study 2: hand-worked captions, planted attention, plain loops, pieces against words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from metrics_naive import MemoryStore, attention, axes, random_study
from scipy import stats

from attention_atlas.errors import AtlasError
from attention_atlas.figures.modality_page import dispersion
from attention_atlas.language.parse import Parse, Token
from attention_atlas.metrics.bootstrap import paired_difference
from attention_atlas.metrics.entropy import Entropy
from attention_atlas.metrics.modality_compare import compare, two_sided
from attention_atlas.metrics.modality_dependencies import Dependencies
from attention_atlas.metrics.modality_examples import choose
from attention_atlas.metrics.modality_frequency import NounFrequency
from attention_atlas.metrics.modality_locality import Locality
from attention_atlas.metrics.modality_pos import PosMass
from attention_atlas.metrics.modality_start import StartShare
from attention_atlas.metrics.modality_words import WordStore, word_axis
from attention_atlas.metrics.study import Study
from attention_atlas.metrics.table import head_matrix, select
from attention_atlas.store import Axis

KIND = {"decoder_self": ("target", "source")}
RELATIONS = {
    "det": "to dependent",
    "compound": "to dependent",
    "nummod": "to dependent",
    "pobj": "to head",
    "prep": "to head",
}
# word, POS, dependency, head
SENTENCE = [
    ("a", "DET", "det", 1),
    ("man", "NOUN", "nsubj", 2),
    ("stands", "VERB", "ROOT", 2),
    ("on", "ADP", "prep", 2),
    ("two", "NUM", "nummod", 6),
    ("dining", "NOUN", "compound", 6),
    ("tables", "NOUN", "pobj", 3),
    ("of", "ADP", "prep", 6),
]
WORDS = [w for w, *_ in SENTENCE]


def sentence(id_="e", rows=SENTENCE):
    tokens, at = [], 0
    for word, pos, dep, head in rows:
        tokens.append(Token(word, at, at + len(word), pos, pos, dep, head, 0))
        at += len(word) + 1
    return Parse(id_, tokens)


def study_of(attn, parses=None, **settings):
    """attn {id: (L,H,Q,K)} over SENTENCE (or the given parses)."""
    parses = parses or {i: sentence(i) for i in attn}
    axis = {i: axes([t.text for t in parses[i].tokens], 1) for i in attn}
    store = MemoryStore(KIND, {i: {"decoder_self": a.astype(np.float32)} for i, a in attn.items()}, axis)
    return Study(store, parses, resamples=200, experiment="t", model="m", **settings)


def random_attention(seed=0, layers=2, heads=3, words=8):
    return attention(np.random.default_rng(seed), layers, heads, words, 1, kinds=KIND)["decoder_self"]


def value(table, layer=-1, head=-1, **where):
    rows = select(table, layer=layer, head=head, **where)
    assert len(rows) == 1, rows
    return float(rows["value"].iloc[0])


# Attention on words of a two-word caption with known numbers: rows generate "a", "man"; keys START, a, man.
def test_pos_mass_is_a_ratio_of_sums_by_hand():
    rows = [("a", "DET", "det", 1), ("man", "NOUN", "ROOT", 1), ("stands", "VERB", "ROOT", 2)]
    attn = np.zeros((1, 1, 4, 4))
    attn[0, 0, 0, 0] = 1.0
    attn[0, 0, 1, :2] = [0.8, 0.2]
    attn[0, 0, 2, :3] = [0.2, 0.2, 0.6]
    attn[0, 0, 3] = 0.25  # generates EOS: does not count
    table = PosMass()(study_of({"e": attn}, {"e": sentence(rows=rows)}))
    # DET gets 0.2 + 0.2, NOUN 0.6; all attention on words: 1.0. Mean of shares would be (1 + 0.25) / 2.
    assert value(table, condition="DET") == pytest.approx(0.4)
    assert value(table, condition="NOUN") == pytest.approx(0.6)
    assert set(table["n"]) == {2}
    # Uniform: row 2 all on DET, row 3 half and half.
    assert select(table, condition="DET")["chance"].iloc[0] == pytest.approx(0.75)
    kept = PosMass(bos="keep")(study_of({"e": attn}, {"e": sentence(rows=rows)}))
    assert value(kept, condition="NOUN") == pytest.approx(0.6 / 2)


def test_pos_mass_is_the_loop_and_counts_heads():
    attn = {f"e{i}": random_attention(i) for i in range(3)}
    table = PosMass(above={"NOUN": [0.3]})(study_of(attn))
    num, den = np.zeros((2, 3)), np.zeros((2, 3))
    for a in attn.values():
        for q in range(1, 8):
            for k in range(1, q + 1):
                den += a[:, :, q, k]
                num += a[:, :, q, k] * (SENTENCE[k - 1][1] == "NOUN")
    expected = num / den
    np.testing.assert_allclose(
        head_matrix(select(table, metric="pos_mass", condition="NOUN")), expected, rtol=1e-5
    )
    above = select(table, metric="heads_above", condition="NOUN > 0.3").iloc[0]
    assert above["value"] == (expected > 0.3).sum() and above["n"] == 6
    shares = select(table, metric="pos_mass", layer=1, head=2)
    assert shares["value"].sum() == pytest.approx(1.0, abs=1e-5)


def test_dependencies_follow_the_stated_directions():
    """Planted: each partner gets its own share of the generated word's attention, a third cell the rest."""
    planted = {"det": 0.5, "compound": 0.3, "nummod": 0.4, "pobj": 0.2, "prep": 0.6}
    attn = np.zeros((1, 1, 9, 9))
    attn[0, 0, :, 0] = 1.0
    for generated, attended, share in ((1, 0, 0.5), (3, 2, 0.6)):  # man → a, on → stands
        attn[0, 0, generated, 1 + attended], attn[0, 0, generated, 0] = share, 0.0
        other = 1 if attended != 0 else 0
        attn[0, 0, generated, other] += 1 - share
    attn[0, 0, 6, 0] = 0.0
    attn[0, 0, 6, [1 + 5, 1 + 4, 1 + 3, 1 + 0]] = [0.3, 0.4, 0.2, 0.1]  # tables → dining, two, on
    attn[0, 0, 7, [0, 1 + 6, 1 + 1]] = [0.0, 0.2, 0.8]  # of → tables, man
    table = Dependencies(RELATIONS, by_head=["prep"], bos="keep")(study_of({"e": attn}))
    for name in ("det", "compound", "nummod", "pobj"):
        assert value(table, condition=name) == pytest.approx(planted[name], abs=1e-6)
    assert value(table, condition="prep, VERB") == pytest.approx(0.6, abs=1e-6)
    assert value(table, condition="prep, NOUN") == pytest.approx(0.2, abs=1e-6)
    assert value(table, condition="prep") == pytest.approx(0.4, abs=1e-6)
    assert int(select(table, condition="prep")["n"].max()) == 2
    # Uniform with START: "on" sees START and 3 words, "of" START and 7 words.
    assert select(table, condition="prep")["chance"].iloc[0] == pytest.approx((1 / 4 + 1 / 8) / 2)
    dropped = Dependencies(RELATIONS)(study_of({"e": attn}))
    assert value(dropped, condition="det") == pytest.approx(1.0)  # "man" sees one word


def test_dependencies_by_pairs_and_partners_that_come_later():
    attn = {"e": random_attention(4)}
    sums = Dependencies(RELATIONS)(study_of(attn))
    pairs = Dependencies(RELATIONS, average="pairs")(study_of(attn))
    a = attn["e"]
    rows = [(3, 2), (7, 6)]  # prep: on → stands, of → tables
    num = [a[:, :, t, 1 + s] for t, s in rows]
    den = [a[:, :, t, 1 : t + 1].sum(-1) for t, s in rows]
    np.testing.assert_allclose(head_matrix(select(sums, condition="prep")), sum(num) / sum(den), rtol=1e-4)
    np.testing.assert_allclose(
        head_matrix(select(pairs, condition="prep")), (num[0] / den[0] + num[1] / den[1]) / 2, rtol=1e-4
    )
    # "with a bathroom": a preposition before its head cannot look at it.
    later = [("with", "ADP", "prep", 2), ("a", "DET", "det", 2), ("room", "NOUN", "ROOT", 2)]
    table = Dependencies(RELATIONS)(
        study_of({"e": random_attention(1, words=3)}, {"e": sentence(rows=later)})
    )
    assert set(table["condition"]) == {"det"}
    for wrong in ({"relations": {"det": "up"}}, {"relations": RELATIONS, "by_head": ["dobj"]}):
        with pytest.raises(AtlasError, match="metric dependency"):
            Dependencies(**wrong)
    with pytest.raises(AtlasError, match="average"):
        Dependencies(RELATIONS, average="mean")


def test_start_share_by_hand():
    attn = np.zeros((1, 2, 9, 9))
    attn[:, :, 0, 0] = 1.0
    for q in range(1, 9):
        attn[0, 0, q, [0, 1]] = [0.25, 0.75]
        attn[0, 1, q, [0, q]] = [0.5, 0.5]
    table = StartShare()(study_of({"e": attn}))
    assert value(table, 0, 0, condition="all rows") == pytest.approx((1 + 7 * 0.25) / 8)
    assert value(table, 0, 1, condition="without the first row") == pytest.approx(0.5)
    chance = sum(1 / (q + 1) for q in range(8)) / 8
    assert select(table, condition="all rows")["chance"].iloc[0] == pytest.approx(chance)


def test_locality_by_hand_and_by_loop():
    attn = np.zeros((1, 2, 9, 9))
    for q in range(9):
        attn[0, 0, q, q] = 1.0  # the word just before (row q generates word q, key q is word q − 1)
        attn[0, 1, q, min(q, 1)] = 1.0  # always the first word
    table = Locality()(study_of({"e": attn}))
    assert value(table, 0, 0, condition="distance") == pytest.approx(1.0)
    assert value(table, 0, 0, condition="previous word") == pytest.approx(1.0)
    # Rows that see two words: words 2..7, at distances 2..7 from the first.
    assert value(table, 0, 1, condition="distance") == pytest.approx(np.mean(range(2, 8)))
    assert value(table, 0, 1, condition="previous word") == 0.0
    a = random_attention(9)
    num, den = np.zeros((2, 3)), np.zeros((2, 3))
    for t in range(2, 8):
        for s in range(t):
            num += a[:, :, t, 1 + s] * (t - s)
            den += a[:, :, t, 1 + s]
    random_table = Locality()(study_of({"e": a}))
    np.testing.assert_allclose(head_matrix(select(random_table, condition="distance")), num / den, rtol=1e-5)
    chance = np.mean([np.mean(range(1, t + 1)) for t in range(2, 8)])
    assert select(random_table, condition="distance")["chance"].iloc[0] == pytest.approx(chance)


def test_noun_frequency_over_positions_is_scipys_r():
    rng = np.random.default_rng(3)
    parses, attn = {}, {}
    for i in range(12):
        n = 5 + i % 4
        tags = rng.choice(["NOUN", "DET", "VERB"], size=n)
        parses[f"e{i:02d}"] = sentence(f"e{i:02d}", [(f"w{j}", tags[j], "dep", 0) for j in range(n)])
        attn[f"e{i:02d}"] = random_attention(i, words=n)
    table = NounFrequency(units=["positions"])(study_of(attn, parses))
    nouns, mass = np.zeros(8), np.zeros(8)
    for id_, parse in parses.items():
        n = len(parse.tokens)
        for w, token in enumerate(parse.tokens):
            nouns[w] += token.pos == "NOUN"
            for q in range(n):
                mass[w] += attn[id_][:, :, q, 1 + w].mean() if 1 + w <= q else 0.0
    expected = stats.pearsonr(nouns, mass / mass.sum())
    assert value(table, metric="noun_frequency") == pytest.approx(expected.statistic, rel=1e-4)
    assert value(table, metric="noun_frequency_p") == pytest.approx(expected.pvalue, rel=1e-3)
    assert set(table["n"]) == {8}


def test_noun_frequency_over_words_by_hand():
    """cup, pot and pan occur 3, 2 and 2 times; attention is planted so that r is known."""
    caption = lambda i, nouns: sentence(i, [(w, "NOUN", "dep", 0) for w in nouns] + [("is", "AUX", "dep", 0)])  # noqa: E731
    parses = {
        "a": caption("a", ["cup", "pot"]),
        "b": caption("b", ["cup", "pan"]),
        "c": caption("c", ["cup", "pot", "pan"]),
    }
    attn = {}
    for i, parse in parses.items():
        n = len(parse.tokens)
        attn[i] = np.tri(n + 1)[None, None] / np.arange(1, n + 2)[:, None]
    table = NounFrequency(units=["words"])(study_of(attn, parses))
    received: dict[str, list[float]] = {}
    readers: dict[str, int] = {}
    for parse in parses.values():
        n = len(parse.tokens)
        for w, token in enumerate(parse.tokens[:-1]):
            mass = [1 / (q + 1) for q in range(n) if w + 1 <= q]
            received.setdefault(token.text, []).append(sum(mass))
            readers[token.text] = readers.get(token.text, 0) + len(mass)
    names = ["cup", "pan", "pot"]
    expected = stats.pearsonr([3, 2, 2], [sum(received[n]) / readers[n] for n in names])
    assert value(table, metric="noun_frequency", condition="words") == pytest.approx(
        expected.statistic, rel=1e-5
    )
    with pytest.raises(AtlasError, match="units: 'letters'"):
        NounFrequency(units=["letters"])


def test_dispersion_of_one_caption_is_the_entropy_metric():
    a = random_attention(2)
    table = Entropy(kinds=["decoder_self"])(study_of({"e": a}))
    expected = head_matrix(select(table, metric="entropy"))
    np.testing.assert_allclose(dispersion(a[:, :, :8]), expected, rtol=1e-5)
    uniform = np.tri(8, 9)[None, None] / np.arange(1, 9)[:, None]
    assert dispersion(uniform)[0, 0] == pytest.approx(1.0)
    row = np.array([0.5, 0.3, 0.2])  # by hand: one row over two words, 0.3 and 0.2 of 0.5
    by_hand = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4)) / math.log(2)
    single = np.zeros((1, 1, 3, 4))
    single[0, 0, 2, :3] = row
    assert dispersion(single)[0, 0] == pytest.approx(by_hand, rel=1e-5)


def pieces_store(seed=0):
    """ "a redwood lamp" read in pieces a | red | wood | lamp, and the same attention over words by loops."""
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
    table = Entropy(kinds=["decoder_self"])(Study(words, {"e": sentence(rows=rows)}, resamples=10))
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
    assert set(table["model"]) == {"a", "b", "a − b"}
    alone = PosMass()(first)
    np.testing.assert_allclose(
        head_matrix(select(table, model="a", metric="pos_mass", condition="NOUN")),
        head_matrix(select(alone, condition="NOUN")),
    )
    row = select(table, model="a − b", metric="pos_mass difference", condition="NOUN", layer=-1).iloc[0]
    a, b = (value(table, model=m, metric="pos_mass", condition="NOUN") for m in "ab")
    assert row["value"] == pytest.approx(a - b) and row["ci_low"] <= row["value"] <= row["ci_high"]
    p = value(table, model="a − b", metric="pos_mass difference p", condition="NOUN")
    assert 0 < p <= 1
    same = compare(metrics, {"a": first, "b": first}, [("a", "b")])
    zero = select(same, model="a − b", metric="pos_mass difference")
    assert not zero["value"].any() and set(select(same, metric="pos_mass difference p")["value"]) == {1.0}
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
    difference = value(table, model="x − y", metric="pos_mass difference", condition="NOUN")
    assert difference == pytest.approx(0.4 * 6 / 7, abs=1e-6)  # the row that sees one word is alike
    assert value(table, model="x − y", metric="pos_mass difference p", condition="NOUN") == pytest.approx(
        2 / 201
    )


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
