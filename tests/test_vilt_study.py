"""The study's tables and figures from planted statistics, answers and heads, end to end without a model."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from vqa_world import blocks

from attention_atlas.dumps.vqa import GROUPS
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.measures.results import write_results
from attention_atlas.measures.table import measured, read_table
from attention_atlas.plotting.draw import of_profile
from attention_atlas.recording import Axis, StatisticsWriter
from attention_atlas.studies.metric_table import table_of
from attention_atlas.studies.vilt_layers import figures as vilt_layers
from attention_atlas.studies.vilt_layers import figures_heads as vilt_heads
from attention_atlas.studies.vilt_layers.answer_rows import Accuracy, Who, accuracy_rows
from attention_atlas.studies.vilt_layers.attention_rows import Attention, Differences
from attention_atlas.studies.vilt_layers.figures_shown import words_by_layers
from attention_atlas.studies.vilt_layers.head_rows import Importance, ImportanceCorrelation, Pruning
from attention_atlas.studies.vilt_layers.record import Record
from attention_atlas.studies.vilt_layers.shown import write_distribution

LAYERS, HEADS = 2, 3
COMPARE = [("mass", "text → image"), ("asked", "content words")]


MEASURES = {
    "attention": Attention(),
    "differences": Differences(COMPARE, permutations=200),
    "importance": Importance(),
    "importance_correlation": ImportanceCorrelation([("mass", "text → image"), ("norm", "all")]),
    "pruning": Pruning(),
    "accuracy": Accuracy(),
}


def answer_of(example):
    return example.answers[0]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Head (1, 0) sends "where" questions to the image; head (0, 1) matters most; answers are right but for
    every sixth."""
    folder = tmp_path_factory.mktemp("study")
    corpus = blocks(folder / "world", 120)
    asked = sorted(corpus.split("test"), key=lambda e: e.id)
    rng = np.random.default_rng(0)
    writer = StatisticsWriter(
        folder / "s.h5",
        model="vilt",
        config_hash="h",
        kinds={"joint": ("sequence", "sequence")},
        groups={"sequence": GROUPS},
    )
    for example in asked:
        words = example.text.lower().rstrip("?").split()
        roles = ["bos", *["text"] * len(words), "eos", "special", *["image"] * 9]
        patches = [f"{r + 1},{c + 1}" for r in range(3) for c in range(3)]
        axis = Axis(["[CLS]", *words, "[SEP]", "[IMG]", *patches], roles)
        mass = np.full((LAYERS, HEADS, len(roles), 6), 0.1)
        mass[..., 4] = 0.5 + rng.normal(0, 0.01, (LAYERS, HEADS, 1))
        mass[1, 0, :, 4] += 0.2 * example.text.startswith("Where")
        mass[..., 5] = mass[..., 4] / 2
        entropy = np.full(mass.shape[:3], 1.0)
        values = {"mass": mass, "entropy": entropy, "head_norm": entropy * np.arange(1, 4)[:, None]}
        writer.write(example.id, {"joint": values}, {"sequence": axis})
    writer.finish()
    given = {e.id: answer_of(e) if n % 6 else "nothing" for n, e in enumerate(asked)}
    blind = {e.id: "red" for e in asked}
    val = sorted(corpus.split("val"), key=lambda e: e.id)
    whole = np.tile([1.0, 0.5], (len(val), 1))
    without = np.tile(whole[:, None, None], (1, LAYERS, HEADS, 1))
    without[:, 0, 1] = [0.25, 2.5]
    steps = np.array([0, 3, 6])
    heads = {
        "ids": np.array([e.id for e in val]),
        "whole": whole,
        "without": without,
        "pruned_ids": np.array([e.id for e in asked]),
        "steps": steps,
        "pruned_importance": np.tile([0.9, 0.8, 0.1], (len(asked), 1)),
        "pruned_random": np.tile([0.9, 0.4, 0.1], (len(asked), 1)),
    }
    answers = {Who("vilt"): given, Who("vqa_blind"): blind}
    record = Record("vilt", corpus, "test", folder / "s.h5", answers, heads, resamples=200)
    frame = table_of(MEASURES, [record], study="vilt_layers", data="blocks", model="vilt")
    write_results(folder, frame)
    write_distribution(record, COMPARE, folder / "distribution.json")
    return folder, frame, record


def one(frame, **where):
    rows = measured(frame, **({"layer": -1, "head": -1} | where))
    assert len(rows) == 1, where
    return rows.iloc[0]


def test_planted_head_differs_for_its_type_and_no_other(study):
    _, frame, _ = study
    where = {"measure": "mass", "condition": "text → image", "group": "where", "against": "others"}
    p = measured(frame, **where, statistic="p Holm")
    low = p[p["value"] < 0.05]
    assert list(zip(low["layer"], low["head"])) == [(1, 0)]
    seen = one(frame, **where, layer=1, head=0)
    assert seen["value"] == pytest.approx(0.2, abs=0.02) and seen["ci_low"] > 0.15
    assert one(frame, measure="mass", condition="text → image", layer=0)["value"] == pytest.approx(
        0.5, abs=0.01
    )
    # The block covers 4 of 9 patches at least half, or fewer where it lies between rows.
    assert 0.2 < one(frame, measure="asked", condition="cls")["chance"] < 0.7
    assert one(frame, measure="asked", condition="cls")["value"] == pytest.approx(0.5, abs=0.01)


def test_accuracies_and_their_differences(study):
    _, frame, record = study
    asked = sorted(record.corpus.split("test"), key=lambda e: e.id)
    right = [100.0 if n % 6 else 0.0 for n in range(len(asked))]
    assert one(frame, measure="accuracy", model="vilt", condition="")["value"] == pytest.approx(
        np.mean(right)
    )
    red = np.mean([answer_of(e) == "red" for e in asked if e.text.startswith("What")])
    assert one(frame, measure="accuracy", model="vqa_blind", group="what color")["value"] == pytest.approx(
        100 * red
    )
    where = {"measure": "accuracy", "model": "vilt", "against": "vqa_blind", "group": "where"}
    assert one(frame, **where)["ci_low"] > 50
    assert one(frame, **where, statistic="p")["value"] < 0.05


def test_pairs_need_both():
    from attention_atlas.data.corpus import Example

    questions = [Example(f"q{n}", f"i{n}", "Is it?", answers=[a] * 10) for n, a in enumerate(("yes", "no"))]
    questions[0].extra["pair"], questions[1].extra["pair"] = "q1", "q0"
    for given, expected in (({"q0": "yes", "q1": "no"}, 100.0), ({"q0": "yes", "q1": "yes"}, 0.0)):
        rows = accuracy_rows(questions, {Who("vilt"): given}, "vilt", 50, 0)
        found = [r for r in rows if r["measure"] == "pair accuracy" and not r["group"]]
        assert found[0]["value"] == expected
    with pytest.raises(AtlasError, match="none for question 'q1'"):
        accuracy_rows(questions, {Who("vilt"): {"q0": "yes"}}, "vilt", 50, 0)


def test_importance_and_pruning(study):
    _, frame, _ = study
    assert one(frame, measure="importance", condition="loss", layer=0, head=1)["value"] == pytest.approx(2.0)
    assert one(frame, measure="importance", condition="accuracy", layer=0, head=1)["value"] == pytest.approx(
        75.0
    )
    assert one(frame, measure="importance", condition="loss", layer=1, head=1)["value"] == pytest.approx(0.0)
    assert one(frame, measure="pruned", condition="importance", setting="3")["value"] == pytest.approx(80.0)
    at_random = one(frame, measure="pruned", condition="random", setting="3", group="where")
    assert at_random["value"] == pytest.approx(40.0)
    assert -1 <= one(frame, kind="importance correlation", measure="norm", condition="all")["value"] <= 1


def test_the_table_is_read_back_and_summarised(study):
    folder, frame, _ = study
    assert len(read_table(folder / "tables/metrics.csv")) == len(frame)
    values = json.loads((folder / "metrics.json").read_text())["metrics"]
    assert values["vilt"]["blocks"]["answer accuracy"] == pytest.approx(83.3333, abs=1e-3)


def test_scenes_without_objects_leave_out_what_is_asked_about(study):
    _, frame, record = study
    corpus = record.corpus
    bare = replace(corpus, scenes={i: replace(s, objects=[]) for i, s in corpus.scenes.items()})
    bare = replace(bare, examples=[replace(e, phrases=[]) for e in corpus.examples])
    blind = replace(record, corpus=bare, resamples=20)
    rows = [*Attention().rows(blind), *Differences(COMPARE, permutations=20).rows(blind)]
    assert "asked" not in {row["measure"] for row in rows}
    assert {row["measure"] for row in rows if row.get("against")} == {"mass"}
    assert ImportanceCorrelation([("asked", "content words")]).rows(blind) == []
    strict = replace(blind, optional=())
    for measure, option in ((Differences(COMPARE), "compare"), (ImportanceCorrelation(COMPARE), "correlate")):
        with pytest.raises(ConfigError, match=rf"{option}: no measure \["):
            measure.rows(strict)
    quantities = {"a": ["mass", "text → image"], "b": ["asked", "content words"]}
    mass_only = frame[frame["measure"] == "mass"]
    assert list(vilt_layers.present(mass_only, quantities, ["asked"])) == ["a"]


def test_statistics_without_answers_are_refused(study):
    record = replace(study[2], answers={Who("vilt"): {}})
    with pytest.raises(AtlasError, match="has no answers"):
        Attention().rows(record)


def test_every_figure_is_drawn_from_the_table(study, tmp_path):
    """The YAML's own figures, except overlays, which need attention.h5."""
    from hydra.utils import instantiate

    folder, _, _ = study
    table = read_table(folder / "tables/metrics.csv")
    spec = OmegaConf.load(Path(__file__).parents[1] / "conf/figure/vilt_layers.yaml")
    for name, entry in of_profile(spec, "mini").items():
        if str(name).startswith("overlay") or name in ("importance_statistics", "pairs", "learning"):
            continue
        if name == "distribution":
            entry["values"] = str(folder / "distribution.json")
        for rows in (table, table.assign(ci_low=np.nan, ci_high=np.nan)):  # one image has no intervals
            figure = instantiate(entry, _partial_=True)(rows)
            assert figure.axes, name
            figure.canvas.draw()
    shown = vilt_heads.against(table, {"norm": ["norm", "all"]})
    assert "ρ" in shown.axes[0].get_title()
    with pytest.raises(AtlasError, match="no rows with kind = joint, measure = mass, condition = nowhere"):
        vilt_layers.needed(table, "mass", "nowhere")
    with pytest.raises(AtlasError, match="no such file"):
        words_by_layers(table, str(tmp_path / "shown.json"))
