"""`look` and `ground` from the command line with a checkpoint of each of eight families; test_doctor.py and
test_own_phases.py do the same for `doctor` and `phases`."""

from __future__ import annotations

import csv
import json

import pytest
from ground_tiny import boxes_csv
from tiny_checkpoints import CROSS_FAMILIES, FAMILIES, QUERY_FAMILIES

from attention_atlas.__main__ import main

ALL = FAMILIES | CROSS_FAMILIES


@pytest.mark.parametrize("family", ALL)
def test_a_checkpoint_of_each_family_is_looked_at_and_scored(family, tmp_path, capsys):
    model, photos = str(ALL[family](tmp_path / "model")), tmp_path / "photos"
    photos.mkdir()
    boxes_csv(photos, images=4)
    out = tmp_path / "look"
    asked = ["--image", str(photos / "0.png"), "--prompt", "where is the sofa ?", "--answer", "on the rug"]
    assert main(["look", model, *asked, "--out", str(out)]) == 0, capsys.readouterr().err
    assert {"index.html", "statistics.h5", "summary.json"} <= {path.name for path in out.iterdir()}
    assert json.loads((out / "summary.json").read_text())

    assert (
        main(["ground", model, "--data", str(photos), "--folds", "2", "--out", str(tmp_path / "ground")]) == 0
    )
    rows = list(csv.DictReader((tmp_path / "ground/heads.csv").open()))
    assert {row["measure"] for row in rows} == {"pointing", "mass", "iou"}
    for row in rows:
        assert 0 <= float(row["value"]) <= 1
        # The share of the attention that the image's patches get: every head sees the image.
        assert 0 < float(row["share"]) < 1


@pytest.mark.parametrize("family", QUERY_FAMILIES)
def test_models_that_read_images_through_queries(family, tmp_path, capsys):
    """Their processors add the tokens of the image. A query has no place, so heads have no map to score."""
    model, photos = str(QUERY_FAMILIES[family](tmp_path / "model")), tmp_path / "photos"
    photos.mkdir()
    boxes_csv(photos, images=4)
    asked = ["--image", str(photos / "0.png"), "--prompt", "where is the sofa ?", "--answer", "on the rug"]
    assert main(["look", model, *asked, "--out", str(tmp_path / "look")]) == 0, capsys.readouterr().err
    summary = json.loads((tmp_path / "look/summary.json").read_text())
    assert [token["box"] for token in summary["image_tokens"]] == [[None] * 4] * 4
    assert main(["doctor", model, *asked]) == 0, capsys.readouterr().out
    assert main(["faithfulness", model, *asked, "--baseline", "embedding", "--out", str(tmp_path / "f")]) == 0
    assert main(["knockout", model, *asked, "--out", str(tmp_path / "k")]) == 0, capsys.readouterr().err
    capsys.readouterr()
    two = ["--image", *[str(photos / f"{n}.png") for n in (0, 1)], *asked[2:]]
    assert main(["look", model, *two, "--out", str(tmp_path / "two")]) == 2
    assert "takes one for each prompt" in capsys.readouterr().err
    assert main(["ground", model, "--data", str(photos), "--folds", "2", "--out", str(tmp_path / "g")]) == 2
    assert "error: " in capsys.readouterr().err and not (tmp_path / "g").exists()
