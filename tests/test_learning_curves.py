"""The table and the figure of what was validated during training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from attention_atlas.errors import AtlasError
from attention_atlas.measures.table import make_table, read_table, write_table
from attention_atlas.models.run_folder import save_run
from attention_atlas.plotting.draw import of_profile
from attention_atlas.plotting.learning import learning
from attention_atlas.studies.learning_table import learning_rows

HISTORY = [{"epoch": 1, "step": 10, "loss": 2.0}, {"epoch": 2, "step": 20, "loss": 1.0}]


def saved(folder: Path, name: str, seed: int, alignment: str = "", shift: float = 0.0) -> Path:
    model: dict[str, Any] = {"name": name} | ({"alignment": {"name": alignment}} if alignment else {})
    history = [row | {"loss": row["loss"] + shift} for row in HISTORY]
    config = {"model": model, "data": "rooms", "seed": seed, "sizes": {}}
    save_run(folder, {"w": torch.zeros(1)}, config, history)
    return folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    runs = [
        saved(tmp_path / "a", "mac", 0, "dot"),
        saved(tmp_path / "b", "mac", 1, "dot", shift=1.0),
        saved(tmp_path / "c", "mac", 0, "general", shift=5.0),
        saved(tmp_path / "d", "blind", 0),
    ]
    path = tmp_path / "learning.csv"
    write_table(path, make_table(row for run in runs for row in learning_rows(run)))
    return path


def test_a_row_for_each_number_of_each_validation(table: Path) -> None:
    rows = read_table(table)
    assert len(rows) == 4 * 2 and set(rows["measure"]) == {"loss"}
    one = rows[(rows["alignment"] == "dot") & (rows["seed"] == "1")]
    assert one["setting"].tolist() == ["10", "20"] and one["value"].tolist() == [3.0, 2.0]


def test_the_lines_are_means_over_seeds_by_alignment(table: Path) -> None:
    panel = {"measure": "loss", "models": {"mac": "", "blind": "no image"}}
    (ax,) = learning(make_table([]), str(table), {"loss": panel}).axes
    lines = [(list(line.get_xdata()), list(line.get_ydata())) for line in ax.lines]
    assert lines == [([10, 20], [2.5, 1.5]), ([10, 20], [7.0, 6.0]), ([10, 20], [2.0, 1.0])]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["no image"]
    two = learning(make_table([]), str(table), {"loss": panel, "again": panel}).axes
    assert [ax.get_legend() is None for ax in two] == [False, True]


def test_a_panel_without_rows_is_named(table: Path) -> None:
    panel = {"measure": "accuracy", "models": {"mac": "MAC"}}
    with pytest.raises(AtlasError, match="no rows for 'right answers'"):
        learning(make_table([]), str(table), {"right answers": panel})


@pytest.mark.parametrize(("profile", "shown"), [("mini", True), ("mini-long", True), ("paper", False)])
def test_mini_long_draws_what_mini_draws(profile: str, shown: bool) -> None:
    entries = {"all": {"a": 1}, "some": {"a": 1, "profiles": ["mini", "smoke"]}}
    assert of_profile(entries, profile) == {"all": {"a": 1}} | ({"some": {"a": 1}} if shown else {})
