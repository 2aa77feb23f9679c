"""Table 1: values are those of the scorer, intervals hold them, mistakes are named."""

import math
from pathlib import Path

import pytest

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.measures.table import measured
from attention_atlas.studies.grounding.captions_table import SHOWN, caption_table

TEXTS = [
    "there is a red chair near the window",
    "a small lamp stands on the wooden table",
    "the bed is against the wall",
    "two pictures hang above the sofa",
]


def corpus() -> Corpus:
    scenes = {f"i{n}": Scene(f"i{n}", "x.png", 10, 10, "test") for n in range(4)}
    return Corpus(Path("."), scenes, [Example(f"e{n}", f"i{n}", text) for n, text in enumerate(TEXTS)], "toy")


def test_perfect_and_wrong_models_are_distinguished() -> None:
    right = {f"i{n}": text for n, text in enumerate(TEXTS)}
    wrong = {f"i{n}": TEXTS[(n + 1) % 4] for n in range(4)}
    table = caption_table(corpus(), "test", {"right": right, "wrong": wrong}, "toy")
    value = measured(table).set_index(["model", "measure"])["value"]
    other = measured(table, input="other").set_index(["model", "measure"])["value"]
    assert list(table["measure"]) == 4 * list(SHOWN)
    # Each text judged before the next picture: the right one is then wrong, the wrong one two places off.
    assert other["right", "BLEU-4"] < 70
    assert other["right", "CIDEr"] < value["right", "CIDEr"] / 5
    for metric in ("BLEU-1", "BLEU-4", "WMD"):
        assert value["right", metric] == pytest.approx(100, abs=1e-4)
        assert value["wrong", metric] < 70
    assert value["right", "CIDEr"] > 5 * value["wrong", "CIDEr"]
    scored = table[table["value"].notna()]
    assert (scored["ci_low"] <= scored["value"] + 1e-6).all()
    assert (scored["value"] <= scored["ci_high"] + 1e-6).all()
    assert (table["n"] == 4).all()


def test_without_java_the_rest_still_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    right = {f"i{n}": text for n, text in enumerate(TEXTS)}
    table = caption_table(corpus(), "test", {"right": right}, "toy")
    table = measured(table, model="right").set_index("measure")
    assert math.isnan(table.loc["METEOR", "value"])
    assert "Java" in table.loc["METEOR", "condition"]
    assert table.loc["BLEU-4", "value"] == pytest.approx(100, abs=1e-4)
