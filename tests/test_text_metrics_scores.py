"""Text metrics by hand, and against the field's own tools."""

from __future__ import annotations

import math
import shutil
import subprocess
from typing import Any

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.measures.text import score as score_module
from attention_atlas.measures.text import tokenize
from attention_atlas.measures.text.cider import cider
from attention_atlas.measures.text.score import METRICS, score, score_models
from attention_atlas.measures.text.tokenize import plain, treebank, why_no_java
from attention_atlas.measures.text.wmd import load_vectors, wmd

JAVA = shutil.which("java") is not None

TEXTS = [
    "There's a red-brown bed (queen size) next to the window, isn't it?",
    "A kitchen with 3.5 stools and the chef's table...",
    "It's L-shaped; the couch can't be \"new\" -- 1,000 cm wide!",
    "",
    "They'll see: we've two lamps; I'd say that's all.",
]


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenize.shutil, "which", lambda name: None)


def vectors() -> Any:
    from gensim.models import KeyedVectors

    found = KeyedVectors(vector_size=2)
    points = {"couch": (0, 0), "table": (3, 4), "lamp": (0, 1), "bed": (6, 8)}
    found.add_vectors(list(points), np.array(list(points.values()), np.float32))
    return found


# --- CIDEr ----------------------------------------------------------------------------------------------


def test_cider_by_hand() -> None:
    # Two texts: every word has document frequency 1, so all weights are ln 2. Of "red table" and "red couch"
    # the unigram cosine is 1/2, no bigram agrees, longer grams are absent: 10 · (1/2 + 0 + 0 + 0) / 4.
    references = {"a": ["red couch"], "b": ["blue table"]}
    mean, each = cider(references, {"a": "red table", "b": "green wall"})
    assert each == pytest.approx({"a": 1.25, "b": 0.0})
    assert mean == pytest.approx(0.625)


def test_cider_of_a_part_uses_the_document_frequencies_of_all_references() -> None:
    references = {"a": ["the red couch"], "b": ["the blue table"], "c": ["the lamp"]}
    whole = cider(references, {"a": "the red lamp", "b": "the", "c": "the lamp"})[1]
    part = cider(references, {"a": "the red lamp"})
    assert part[1] == {"a": whole["a"]}
    assert part[0] == whole["a"]


def test_cider_wants_references() -> None:
    with pytest.raises(AtlasError, match="'b' has no reference"):
        cider({"a": ["x"]}, {"b": "x"})
    with pytest.raises(AtlasError, match="there are none"):
        cider({"a": ["x"]}, {})


# --- WMD ------------------------------------------------------------------------------------------------


def test_wmd_by_hand() -> None:
    references = {"1": ["the table"], "2": ["a couch and a lamp"], "3": ["table bed", "lamp"]}
    similarity, distance = wmd(
        references, {"1": "couch table", "2": "lamp couch", "3": "the lamp"}, vectors()
    )
    # 1: half of the mass goes from couch (0,0) to table (3,4), a way of 5.
    assert distance["1"] == pytest.approx(2.5, abs=1e-4)
    assert similarity["1"] == pytest.approx(100 * math.exp(-2.5), abs=1e-3)
    assert (distance["2"], similarity["2"]) == pytest.approx((0.0, 100.0), abs=1e-4)
    assert distance["3"] == pytest.approx(0.0, abs=1e-4)  # the nearest reference counts


def test_wmd_counts_words_by_frequency() -> None:
    _, distance = wmd({"1": ["couch"]}, {"1": "table table table couch"}, vectors())
    assert distance["1"] == pytest.approx(0.75 * 5, abs=1e-4)


def test_wmd_without_any_known_word_is_no_similarity() -> None:
    similarity, distance = wmd({"1": ["couch"], "2": ["qqq"]}, {"1": "the of", "2": "lamp"}, vectors())
    assert similarity == {"1": 0.0, "2": 0.0}
    assert distance["1"] == distance["2"] == math.inf


def test_glove_holds_the_known_words_only() -> None:
    found = load_vectors({"couch", "sofa", "stock", "qqqzzz"})
    assert sorted(found.index_to_key) == ["couch", "sofa", "stock"]
    assert found.vector_size == 50
    assert found.similarity("couch", "sofa") > 0.6 > 0.3 > found.similarity("couch", "stock")


# --- tokens ---------------------------------------------------------------------------------------------


def test_treebank_tokens_are_those_of_the_field_s_tool() -> None:
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    if not JAVA:
        with pytest.raises(AtlasError, match="no java on the PATH"):
            treebank(TEXTS)
        return
    texts = [t for t in TEXTS if t]
    want = PTBTokenizer().tokenize({i: [{"caption": t}] for i, t in enumerate(texts)})
    assert treebank(texts) == [want[i][0] for i in range(len(texts))]
    assert treebank(["", "a bed", ""]) == ["", "a bed", ""]


def test_plain_tokens_agree_with_treebank_on_plain_english() -> None:
    want = [
        "there 's a red-brown bed -lrb- queen size -rrb- next to the window is n't it",
        "a kitchen with 3.5 stools and the chef 's table",
        "it 's l-shaped the couch ca n't be new 1,000 cm wide",
        "",
        "they 'll see we 've two lamps i 'd say that 's all",
    ]
    assert plain(TEXTS) == want
    if JAVA:
        assert treebank(TEXTS) == want


def test_plain_tokens_by_hand() -> None:
    assert plain(["The couch isn't L-shaped (it's 1.5 m)."]) == [
        "the couch is n't l-shaped -lrb- it 's 1.5 m -rrb-"
    ]


# --- all together ---------------------------------------------------------------------------------------

REFERENCES = {"a": ["The red couch is big."], "b": ["A bed is next to the window."]}


def test_bleu_by_hand_and_without_java_the_rest_comes(no_java: None) -> None:
    result = score(REFERENCES, {"a": "the red couch", "b": "a bed is next to the window"})
    assert result["n"] == 2
    assert "METEOR is missing" in result["notes"][0] and "no java" in result["notes"][0]
    scores = result["scores"]
    assert scores["METEOR"] is None
    assert set(METRICS) <= set(scores)
    # All n-grams match; the lengths are 3 + 7 against 5 + 7.
    assert scores["BLEU-1"] == pytest.approx(100 * math.exp(1 - 12 / 10), rel=1e-6)
    assert scores["BLEU-2"] == pytest.approx(100 * math.exp(1 - 12 / 10), rel=1e-6)
    assert result["per_example"]["BLEU-1"]["a"] == pytest.approx(100 * math.exp(1 - 5 / 3), rel=1e-6)
    assert result["per_example"]["WMD"]["b"] == pytest.approx(100.0, abs=1e-3)
    # One reference each: a text equal to its reference has CIDEr 10, here 1000 per cent.
    assert result["per_example"]["CIDEr"]["b"] == pytest.approx(1000.0, rel=1e-6)
    assert scores["CIDEr"] == pytest.approx(sum(result["per_example"]["CIDEr"].values()) / 2)


def test_a_java_that_does_not_start_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = subprocess.CompletedProcess([], 1, "", "no such runtime\nmore")
    monkeypatch.setattr(tokenize.shutil, "which", lambda name: "java")
    monkeypatch.setattr(tokenize.subprocess, "run", lambda *a, **k: broken)
    assert why_no_java() == "java does not start: no such runtime"


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ({}, {}, "references: there are none"),
        (REFERENCES, {"a": "x"}, "'b' is missing"),
        (REFERENCES, {"a": "x", "b": "y", "c": "z"}, "'c' has no reference"),
        ({"a": []}, {"a": "x"}, "references: 'a' has none"),
    ],
)
def test_ids_must_match(references: Any, hypotheses: Any, message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        score(references, hypotheses)


def test_java_starts_once_for_all_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """One tokenizer and one METEOR process for any number of models (here both replaced)."""
    starts = []

    class Meteor:
        def __init__(self) -> None:
            starts.append("meteor")

        def compute_score(self, gold: Any, hypotheses: Any) -> tuple[float, list[float]]:
            assert sorted(gold) == sorted(hypotheses)
            return 0.5, [0.4 for _ in hypotheses]

    import pycocoevalcap.meteor.meteor as meteor_module

    def counted(texts: Any) -> list[str]:
        starts.append("tokenizer")
        return plain(texts)

    monkeypatch.setattr(meteor_module, "Meteor", Meteor)
    monkeypatch.setattr(score_module, "treebank", counted)
    monkeypatch.setattr(score_module, "why_no_java", lambda: "")
    texts = {"a": "a couch", "b": "a bed"}
    result = score_models(REFERENCES, {"one": texts, "two": texts, "three": texts})
    assert starts == ["tokenizer", "meteor"]
    assert result["two"]["scores"]["METEOR"] == 50.0
    assert result["two"]["per_example"]["METEOR"] == {"a": 40.0, "b": 40.0}


@pytest.mark.slow
def test_meteor_prefers_the_paraphrase_and_takes_empty_texts() -> None:
    near = {"a": "the big red sofa", "b": "next to the window is a bed"}
    far = {"a": "", "b": "green plants grow"}
    result = score_models(REFERENCES, {"near": near, "far": far})
    if not JAVA:
        assert result["near"]["scores"]["METEOR"] is None
        return
    assert result["near"]["scores"]["METEOR"] > 30 > 5 > result["far"]["scores"]["METEOR"]
    assert result["far"]["per_example"]["METEOR"]["a"] == 0.0
    assert result["near"]["notes"] == []
