"""The comparison script against numbers counted by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from worlds_text_room import room, seen

from attention_atlas.data.corpus import Example, Phrase, Relation, Scene, write_examples, write_scenes
from attention_atlas.language.parsed import NounPhrase, Parse, SpatialRelation, Token
from attention_atlas.synthetic.rooms.text import describe

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))
import compare_text  # noqa: E402

TEXT = "A lamp on a table. Red."


def _parse() -> Parse:
    """'A lamp on a table. Red.': 7 tokens, 2 sentences, 3 phrases of which 2 are nested, one relation."""
    words = [("A", "DET"), ("lamp", "NOUN"), ("on", "ADP"), ("a", "DET"), ("table", "NOUN"), (".", "PUNCT")]
    words += [("Red", "ADJ"), (".", "PUNCT")]
    tokens, at = [], 0
    for i, (word, pos) in enumerate(words):
        at = TEXT.index(word, at)
        tokens.append(Token(word, at, at + len(word), pos, "", "", 0, int(i > 5)))
        at += len(word)
    phrases = [NounPhrase(0, 5, 1, 0, False), NounPhrase(0, 2, 1, 1, False), NounPhrase(3, 5, 4, 1, True)]
    return Parse("x", tokens, phrases, [SpatialRelation((0, 2), (2, 3), (3, 5), "region")])


def test_measure_by_hand():
    table = compare_text.measure([_parse()])
    assert table["tokens"] == 8 and table["sentences"] == 2
    assert table["noun phrases"] == 3 and table["  without the stop list"] == 2
    assert table["  nested in another"] == 2
    assert (table["relations"], table["  region"], table["  distance"]) == (1, 1, 0)
    assert table["share of NOUN"] == 2 / 8 and table["share of PUNCT"] == 2 / 8
    assert table["type-token ratio"] == 6 / 8  # 'a' and '.' come twice


def test_agreement_by_hand():
    """Gold has the outer phrase, one more that is not found, and a relation with another target."""
    gold = [Phrase(0, 17, [1]), Phrase(19, 22, [2])]
    relation = Relation((0, 6), (7, 9), (10, 17), "region", [1], [2])
    found = compare_text.agreement([Example("x", "x", TEXT, gold, [relation])], [_parse()])
    assert found["noun phrases, precision"] == pytest.approx(1 / 3)
    assert found["noun phrases, recall"] == 1 / 2
    assert found["relations, precision"] == found["relations, recall"] == 1
    relation.target = (2, 6)
    found = compare_text.agreement([Example("x", "x", TEXT, gold, [relation])], [_parse()])
    assert found["relations, precision"] == 0


def test_off_marks_a_quarter():
    world, real = {"tokens": 130.0, "sentences": 5.0}, {"tokens": 100.0, "sentences": 5.0}
    rows = compare_text.markdown(world, {}, real).splitlines()
    assert rows[2].endswith("+30% off |") and rows[3].endswith("+0% |")


@pytest.mark.slow
def test_the_script_prints_both_texts(tmp_path):
    plan = room()
    text, phrases, relations = describe(plan, seen(plan), np.random.default_rng(1))
    write_scenes(tmp_path / "scenes.jsonl", [Scene("a", "a.png", 144, 144, "test", seen(plan))])
    write_examples(tmp_path / "descriptions.jsonl", [Example("a", "a", text, phrases, relations)])
    header = "\tseq_id\timage_id\timage_path\timage_cat\timage_subcat\td1\td2\td3\td4\td5\n"
    row = '0\t0\t77\tp.jpg\tattic\t\tAn attic.\tIt has a "blue" trunk.\tA rope\tDust\tOne bulb\n'
    (tmp_path / "sequences.csv").write_text(header + row, encoding="utf-8")
    (tmp_path / "splits.json").write_text('{"77": "test"}', encoding="utf-8")
    command = [sys.executable, str(ROOT / "benchmarks/compare_text.py"), "--corpus", str(tmp_path)]
    done = subprocess.run([*command, "--tell-me-more", str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "| tokens |" in done.stdout and "relations, recall" in done.stdout
