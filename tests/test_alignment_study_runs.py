"""Runs: every alignment and seed is trained once, resumes after a kill, and gives the same bytes for any
number of processes; functions that are the same are found by their predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alignment_world import ALIGNMENTS, TinyTask, configuration
from conftest import ROOT

from attention_atlas.errors import ConfigError
from attention_atlas.models.run_folder import read_history
from attention_atlas.studies.alignment.result import RunResult
from attention_atlas.studies.alignment.run import TrainingRun, config_of
from attention_atlas.studies.alignment.runs import plan, train_runs
from attention_atlas.studies.alignment.same import groups, read_same


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    folder, reported = tmp_path_factory.mktemp("runs"), []
    cfg = configuration(ROOT)
    runs, note = plan(cfg)
    assert note == ""
    train_runs(cfg, runs, folder / "work", folder / "out", on_run=lambda *found: reported.append(found))
    return folder / "out", reported


def test_every_run_is_written_and_reported(made: tuple[Path, list[Any]]) -> None:
    out, reported = made
    wanted = {f"{a}/seed0" for a in ALIGNMENTS}
    assert {run.folder for run, *_ in reported} == wanted
    for folder in wanted:
        assert RunResult.load(out / folder).scores["accuracy"] > 100 / 6
        assert (out / folder / "model" / "model.safetensors").exists()
        assert [row["epoch"] for row in read_history(out / folder / "model")] == [1, 2, 3]
    assert not (out.parent / "work" / "done").exists()


def test_same_functions_are_found_by_their_predictions(made: tuple[Path, list[Any]]) -> None:
    """Unit vectors: cosine is dot. The bias of f(Q,K) cancels in the softmax. A transposed matrix turns
    f(K,Q) into f(Q,K). Scaling is another function here."""
    pairs = read_same(made[0])
    same = {frozenset(g) for g in groups(pairs)}
    assert same == {frozenset({"dot", "cosine"}), frozenset({"general_qk", "biased_general_qk"})}
    family = groups(pairs, ("same weights", "matrix transposed"))
    assert {frozenset(g) for g in family} == {
        frozenset({"dot", "cosine"}),
        frozenset({"general_kq", "general_qk", "biased_general_qk"}),
    }


def test_a_killed_run_resumes_to_the_same_bytes(
    made: tuple[Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = configuration(ROOT)
    runs, _ = plan(cfg)
    # Three epochs of eight steps a run: killed in the second epoch of the fifth one.
    monkeypatch.setattr(TinyTask, "steps_left", 4 * 24 + 12)
    with pytest.raises(KeyboardInterrupt):
        train_runs(cfg, runs, tmp_path / "work", tmp_path / "out")
    finished = [c for c in runs if (tmp_path / "work/done" / c.folder).is_dir()]
    assert len(finished) == 4 and not (tmp_path / "out").exists()
    assert (tmp_path / "work/training" / runs[4].folder / "checkpoint.pt").exists()
    reported: list[Any] = []
    monkeypatch.setattr(TinyTask, "steps_left", 10**9)
    train_runs(cfg, runs, tmp_path / "work", tmp_path / "out", on_run=lambda *row: reported.append(row[0]))
    assert len(reported) == 2
    assert content(tmp_path / "out") == content(made[0])


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(made: tuple[Path, list[Any]], tmp_path: Path) -> None:
    cfg = configuration(ROOT)
    train_runs(cfg, plan(cfg)[0], tmp_path / "work", tmp_path / "out", processes=2)
    assert content(tmp_path / "out") == content(made[0])


def test_a_model_without_alignment_is_trained_once_per_seed(tmp_path: Path) -> None:
    cfg = configuration(ROOT, seeds=2, model={"alignment": None, "blind": True, "name": "tiny_blind"})
    runs, note = plan(cfg)
    assert runs == [TrainingRun("none", 0), TrainingRun("none", 1)]
    assert note == "model tiny_blind takes no alignment: trained once per seed, not 6 times"
    train_runs(cfg, runs, tmp_path / "work", tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.is_dir()) == ["none"]
    first, second = (tmp_path / f"out/none/seed{k}/model/model.safetensors" for k in (0, 1))
    assert first.read_bytes() != second.read_bytes(), "another seed, another model"
    assert read_same(tmp_path / "out") == []


def test_seed_and_threads() -> None:
    cfg = configuration(ROOT)
    made = config_of(cfg, TrainingRun("general_kq", 5), "cpu")
    assert (made.train.loop.threads, made.seed) == (1, 5)
    assert made.model.alignment.name == "general_kq"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer": {"alignments": ["dott"]}}, "'dott' is not in conf/alignments; did you mean 'dot'"),
        ({"model": {"evaluator": None}}, "conf/model/tiny.yaml: evaluator: missing"),
        ({"trainer": {"seeds": {"default": 0}}}, "no seeds or alignments for model tiny"),
    ],
)
def test_wrong_studies(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(configuration(ROOT, **changes))
