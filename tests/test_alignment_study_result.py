"""A run's result: saved and read back the same, bad content refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignment_planted import result

from attention_atlas.errors import AtlasError
from attention_atlas.studies.alignment.result import RunResult, Shown


def test_round_trip_and_the_same_bytes(tmp_path: Path) -> None:
    made = result("dot", 0, 0.6, examples=9)
    made.shown[1].pixels, made.shown[1].image = None, "images/x.png"
    made.shown[2].boxes_N4, made.shown[2].grid = None, (2, 2)
    made.save(tmp_path / "a")
    made.save(tmp_path / "b")
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    again = RunResult.load(tmp_path / "a")
    assert (again.scores, again.examples, again.grounding) == (made.scores, made.examples, made.grounding)
    for x, y in zip(again.shown, made.shown, strict=True):
        assert (x.example, x.image, x.size, x.words, x.grid, x.text) == (
            *(y.example, y.image, y.size, y.words, y.grid, y.text),
        )
        assert np.array_equal(x.attn_WN, y.attn_WN)
        for name in ("pixels", "boxes_N4"):
            a, b = getattr(x, name), getattr(y, name)
            assert (a is None) == (b is None) and (a is None or np.array_equal(a, b))


def shown(**changes: Any) -> Shown:
    attn = np.full((1, 4), 0.25, np.float32)
    values = {"example": "q", "image": "x.png", "words": ["a"], "attn_WN": attn, "grid": (2, 2)}
    return Shown(**(values | changes))


ROW = {"example": "q", "metric": "accuracy", "value": 1.0}
GROUND = {"example": "q", "word": "a", "mass": 0.5, "chance": 0.1, "top1": 1}


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (RunResult({}), "scores: empty"),
        (RunResult({"a": float("nan")}), "scores: a: nan is not a finite number"),
        (RunResult({"a": 1.0}, [ROW, ROW]), "row 1: example q, accuracy: occurs twice"),
        (RunResult({"a": 1.0}, [{"example": "q", "value": 1.0}]), "row 0: metric: is missing"),
        (
            RunResult({"a": 1.0}, [{**ROW, "value": float("inf")}]),
            "row 0: value: inf is not a finite number",
        ),
        (RunResult({"a": 1.0}, [{**ROW, "type": None}]), "type: None is neither text nor a whole number"),
        (RunResult({"a": 1.0}, [], [{**GROUND, "masss": 1}]), "masss: unknown key; did you mean 'mass'"),
        (RunResult({"a": 1.0}, [], [{**GROUND, "mass": 1.5}]), "mass: 1.5 is not a share"),
        (RunResult({"a": 1.0}, [], [{**GROUND, "top1": 2}]), "top1: 2 is neither 0 nor 1"),
        (RunResult({"a": 1.0}, shown=[shown(), shown()]), "an example occurs twice"),
        (RunResult({"a": 1.0}, shown=[shown(words=["a", "b"])]), "does not fit 2 words"),
        (RunResult({"a": 1.0}, shown=[shown(grid=(3, 2))]), "has 4 columns for 6 places"),
        (RunResult({"a": 1.0}, shown=[shown(grid=None)]), "give either boxes_N4 or grid"),
        (RunResult({"a": 1.0}, shown=[shown(image="")]), "give image .a path. or pixels"),
        (RunResult({"a": 1.0}, shown=[shown(pixels=np.zeros((2, 2)))]), "is not uint8"),
    ],
)
def test_bad_results_are_refused(made: RunResult, message: str, tmp_path: Path) -> None:
    with pytest.raises(AtlasError, match=message):
        made.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_example_may_be_in_two_groups_and_a_word_twice() -> None:
    rows = [{**ROW, "category": "chair"}, {**ROW, "category": "table"}]
    RunResult({"accuracy": 1.0}, rows, [GROUND, GROUND]).check()


@pytest.mark.parametrize("name", ["scores.json", "shown.json", "shown.safetensors", "examples.jsonl"])
def test_missing_or_broken_files_are_named(tmp_path: Path, name: str) -> None:
    result("dot", 0, 0.6, examples=3).save(tmp_path)
    (tmp_path / name).write_text("{broken")
    with pytest.raises(AtlasError, match=name):
        RunResult.load(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(AtlasError, match=name):
        RunResult.load(tmp_path)
