"""Metrics of study 2: hand-worked captions, planted attention, plain loops, pieces against words."""

from __future__ import annotations

import math

import numpy as np
import pytest
from modality_naive import RELATIONS, SENTENCE, random_attention, sentence, study_of, value
from scipy import stats

from attention_atlas.errors import AtlasError
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.table import head_matrix, select
from attention_atlas.studies.modality.dependencies import Dependencies
from attention_atlas.studies.modality.frequency import NounFrequency
from attention_atlas.studies.modality.locality import Locality
from attention_atlas.studies.modality.page import dispersion
from attention_atlas.studies.modality.pos import PosMass, word_shares
from attention_atlas.studies.modality.start import StartShare


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


def test_word_shares_by_hand():
    long = [("a", "DET", "det", 1), ("man", "NOUN", "ROOT", 1), ("sits", "VERB", "ROOT", 2)]
    short = [("two", "NUM", "nummod", 1), ("men", "NOUN", "ROOT", 1)]
    attn = {"e": np.full((1, 1, 4, 4), 0.25), "f": np.full((1, 1, 3, 3), 1 / 3)}
    rows = word_shares(study_of(attn, {"e": sentence(rows=long), "f": sentence(rows=short)}))
    shares = {row["condition"]: row["value"] for row in rows}
    assert shares == {"DET": 0.2, "NOUN": 0.4, "NUM": 0.2, "VERB": 0.2}
    verb = next(row for row in rows if row["condition"] == "VERB")
    assert verb["n"] == 5 and (verb["ci_low"], verb["ci_high"]) == pytest.approx((0, 1 / 3))


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
        head_matrix(select(table, measure="pos_mass", condition="NOUN")), expected, rtol=1e-5
    )
    above = select(table, measure="heads_above", condition="NOUN", setting="0.3").iloc[0]
    assert above["value"] == (expected > 0.3).sum() and above["n"] == 6
    shares = select(table, measure="pos_mass", layer=1, head=2)
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
    assert value(table, condition="prep", group="VERB") == pytest.approx(0.6, abs=1e-6)
    assert value(table, condition="prep", group="NOUN") == pytest.approx(0.2, abs=1e-6)
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
    assert value(table, measure="noun_frequency") == pytest.approx(expected.statistic, rel=1e-4)
    assert value(table, measure="noun_frequency", statistic="p") == pytest.approx(expected.pvalue, rel=1e-3)
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
    assert value(table, measure="noun_frequency", condition="words") == pytest.approx(
        expected.statistic, rel=1e-5
    )
    with pytest.raises(AtlasError, match="units: 'letters'"):
        NounFrequency(units=["letters"])


def test_dispersion_of_one_caption_is_the_entropy_metric():
    a = random_attention(2)
    table = Entropy(kinds=["decoder_self"])(study_of({"e": a}))
    expected = head_matrix(select(table, measure="entropy"))
    np.testing.assert_allclose(dispersion(a[:, :, :8]), expected, rtol=1e-5)
    uniform = np.tri(8, 9)[None, None] / np.arange(1, 9)[:, None]
    assert dispersion(uniform)[0, 0] == pytest.approx(1.0)
    row = np.array([0.5, 0.3, 0.2])  # by hand: one row over two words, 0.3 and 0.2 of 0.5
    by_hand = -(0.6 * math.log(0.6) + 0.4 * math.log(0.4)) / math.log(2)
    single = np.zeros((1, 1, 3, 4))
    single[0, 0, 2, :3] = row
    assert dispersion(single)[0, 0] == pytest.approx(by_hand, rel=1e-5)
