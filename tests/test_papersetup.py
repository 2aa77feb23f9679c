"""docs/paper_setup.md: up to date, all keys exist, all differences are explained; errors of a bad list."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from test_dvc_graph import graph

from attention_atlas.errors import AtlasError
from attention_atlas.reporting import paper_setup as papersetup
from attention_atlas.reporting.paper_setup import Row, read_list, rows_of
from attention_atlas.training.run import build_task, run_config
from attention_atlas.training.settings import TrainSettings
from attention_atlas.workflow.compose import compose


@pytest.fixture(scope="module")
def made() -> tuple[str, list[str]]:
    return papersetup.page(ROOT / papersetup.LIST, ROOT)


def test_the_committed_page_is_current(made: tuple[str, list[str]]) -> None:
    assert (ROOT / papersetup.PAGE).read_text(encoding="utf-8") == made[0], "run make paper-setup"


def test_no_row_differs_without_a_reason(made: tuple[str, list[str]]) -> None:
    assert made[1] == []


def test_the_five_studies_and_their_numbers_are_on_the_page(made: tuple[str, list[str]]) -> None:
    studies = read_list(ROOT / papersetup.LIST)["studies"]
    assert [s["title"].split(":")[0] for s in studies] == [f"Study {n}" for n in range(1, 6)]
    for row in (
        "| beam width | 5 | §2 | 5 | `decode.beam` (write2) |",
        "| MAC: moving average of the weights | 0.999 | MAC --useEMA | 0.999 |",
        "| AttnGAN, COCO: batch size | 14 | §5.3 | 14 |",
    ):
        assert row in made[0]


def row(values: list[Any], **entry: Any) -> Row:
    return Row({"what": "batch", "paper": 128, "source": "§5", **entry}, values)


def test_a_difference_needs_a_reason_and_a_reason_a_difference() -> None:
    assert row([128]).problem() == ""
    assert "the paper has 128, ours is 64: explain it" in row([64]).problem()
    assert "ours is 128 / 64" in row([128, 64]).problem()
    assert "ours is not a setting" in row([]).problem()
    assert row([64], reason="memory").problem() == ""
    assert "no difference to give a reason" in row([128], reason="memory").problem()
    assert row(["large"], same="large").problem() == "" and row([128], same=64).problem()


def test_numbers_are_equal_by_value_not_by_kind_of_yes_and_no() -> None:
    assert row([128.0]).problem() == ""
    assert row([True], paper=1).problem()
    assert row([0], paper=False).problem()


def write(path: Path, rows: list[dict[str, Any]], **runs: str) -> Path:
    path.write_text(yaml.safe_dump({"runs": runs, "studies": [{"title": "One", "rows": rows}]}))
    return path


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"what": "w", "paper": 1}, r"row 1 \(w\): source: field is missing"),
        (
            {"what": "w", "paper": 1, "source": "", "reasons": "x"},
            "reasons: unknown field; did you mean 'reason'",
        ),
        ({"what": "w", "paper": 1, "source": "", "key": "a"}, "give run and key, or code"),
        ({"what": "w", "paper": 1, "source": "", "run": "b", "key": "a"}, "run: 'b' is not under runs"),
    ],
)
def test_a_bad_list_is_named(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    with pytest.raises(AtlasError, match=message):
        read_list(write(tmp_path / "list.yaml", [entry], a="plot"))


def test_a_key_or_a_constant_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = {"what": "w", "paper": 1, "source": "", "run": "a", "key": "train.loop.epoch"}
    study = read_list(write(tmp_path / "list.yaml", [entry], a="plot"))["studies"][0]
    with pytest.raises(
        AtlasError, match=r"One: w: key: 'train.loop.epoch' is not in .* did you mean 'epochs'"
    ):
        rows_of(study, {"a": {"train": {"loop": {"epochs": 3}}}})
    study = {
        "title": "One",
        "rows": [{"what": "w", "paper": 1, "source": "", "code": "attention_atlas.none.N"}],
    }
    with pytest.raises(AtlasError, match=r"no 'attention_atlas.none.N'"):
        rows_of(study, {})


def test_a_stage_that_is_not_in_the_graph_is_named() -> None:
    with pytest.raises(AtlasError, match="no stage 'grounding_dumps' with profile paper; did you mean"):
        papersetup.composed({"a": "grounding_dumps"}, ROOT)


def test_models_own_training_values_are_what_is_read() -> None:
    found = papersetup.composed({"a": "vilt_layers_train-vilt_b32"}, ROOT)["a"]
    assert found["train"]["loop"]["lr"] == found["model"]["training"]["loop"]["lr"] == 1e-4


@pytest.mark.parametrize("profile", ["mini", "smoke", "paper"])
def test_every_training_is_one_that_task_and_loop_take(profile: str) -> None:
    trainings = [stage for stage in graph(profile).stages.values() if stage.script == "train"]
    assert len(trainings) > 15
    for stage in trainings:
        cfg = compose(ROOT, stage.script, [*stage.words[1:], f"profile={profile}"])
        assert build_task(cfg) and TrainSettings.read(run_config(cfg)[1]["loop"], stage.name)
