"""`look` and `ground` from the command line with a checkpoint of each of eight families; test_doctor.py and
test_own_phases.py do the same for `doctor` and `phases`."""

from __future__ import annotations

import csv
import json

import pytest
from ground_tiny import boxes_csv
from tiny_checkpoints import CROSS_FAMILIES, FAMILIES

from attention_atlas.__main__ import main

ALL = FAMILIES | CROSS_FAMILIES


@pytest.mark.parametrize("family", ALL)
def test_a_checkpoint_of_each_family_is_looked_at_and_scored(family, tmp_path, capsys):
    model, photos = str(ALL[family](tmp_path / "model")), tmp_path / "photos"
    photos.mkdir()
    boxes_csv(photos, pictures=4)
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
        # The share of the attention that the picture's patches get: every head sees the picture.
        assert 0 < float(row["share"]) < 1
