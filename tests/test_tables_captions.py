"""Table 1: values are those of the scorer, intervals hold them, mistakes are named."""

import math
from pathlib import Path

import numpy as np
import pytest

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.measures.table import measured
from attention_atlas.studies.grounding.captions_table import SHOWN, caption_table, different

TEXTS = [
    "there is a red chair near the window",
    "a small lamp stands on the wooden table",
    "the bed is against the wall",
    "two images hang above the sofa",
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
    assert list(table["measure"]) == [*4 * SHOWN, "different", "different"]
    # Each text judged before the next image: the right one is then wrong, the wrong one two places off.
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


def test_share_of_pairs_with_different_texts() -> None:
    whole = np.ones((1, 4))
    assert different(["a", "a", "b", "c"], whole) == pytest.approx([100 * 5 / 6])
    assert different(["a"] * 4, whole) == [0]
    # The images were drawn 2, 0, 1 and 1 times: the two draws of the first are not a pair.
    assert different(["a", "a", "b", "c"], np.array([[2, 0, 1, 1]])) == [100]
    assert different(["a", "a", "b", "c"], np.array([[1, 1, 2, 0]])) == pytest.approx([100 * 4 / 5])
    assert np.isnan(different(["a", "b"], np.array([[2, 0]]))).all()


def test_differences_of_two_models_are_paired() -> None:
    right = {f"i{n}": text for n, text in enumerate(TEXTS)}
    wrong = {f"i{n}": TEXTS[(n + 1) % 4] for n in range(4)}
    models = {"right": right, "wrong": wrong, "again": dict(right)}
    pairs = [("right", "wrong"), ("right", "again")]
    table = caption_table(corpus(), "test", models, "toy", compare=pairs)
    alone = measured(table).set_index(["model", "measure"])["value"]
    for metric in SHOWN:
        rows = table[(table["model"] == "right") & (table["measure"] == metric)].set_index("against")
        if math.isnan(alone["right", metric]):
            continue  # METEOR without Java
        assert rows.loc["wrong", "value"] == pytest.approx(alone["right", metric] - alone["wrong", metric])
        assert rows.loc["wrong", "ci_low"] <= rows.loc["wrong", "value"] <= rows.loc["wrong", "ci_high"]
        # The same texts: no difference in any resample.
        assert tuple(rows.loc["again", ["value", "ci_low", "ci_high"]]) == (0, 0, 0)
