"""One image gives values but no interval and no p; tables, figures and the report can do without."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
from conftest import ROOT
from hydra.utils import instantiate
from metrics_naive import SETS, random_study
from modality_naive import random_attention, study_of
from omegaconf import OmegaConf

from attention_atlas.data.corpus import Corpus, Example, Scene
from attention_atlas.linking.evaluate import bootstrap_mean
from attention_atlas.measures.bootstrap import (
    interval,
    paired_difference,
    resampled_ratio,
    resampling_matrix,
)
from attention_atlas.measures.compare import compare
from attention_atlas.measures.entropy import Entropy
from attention_atlas.measures.means import Sample, mean_rows
from attention_atlas.measures.metric import head_rows, measure_all
from attention_atlas.measures.pos import PosShare
from attention_atlas.measures.results import write_results
from attention_atlas.measures.table import make_table, measured, read_table, select, write_table
from attention_atlas.plotting.style import style
from attention_atlas.reporting.numbers import quote
from attention_atlas.studies.grounding.captions_table import caption_table
from attention_atlas.studies.grounding.grounding import Grounding
from attention_atlas.studies.grounding.relations import Relations
from attention_atlas.studies.modality.figures import frequency, parts_of_speech, runs
from attention_atlas.studies.modality.frequency import NounFrequency
from attention_atlas.studies.modality.locality import Locality
from attention_atlas.studies.modality.pos import PosMass
from attention_atlas.studies.modality.start import StartShare
from attention_atlas.studies.vlm_phases.image_ablation import OTHER, OWN, gain_rows
from attention_atlas.studies.vlm_phases.phases import bootstrap_phases

LIMITS = ["ci_low", "ci_high"]
METRICS = {
    "entropy": Entropy(),
    "grounding": Grounding(),
    "pos_share": PosShare(list(SETS.values()), correlate=list(SETS)),
    "pos_mass": PosMass(above={"NOUN": [0.3]}),
    "relations": Relations(),
    "locality": Locality(),
    "start_share": StartShare(),
}


def test_a_value_of_one_image_has_no_interval_and_no_p():
    counts = resampling_matrix(3, 100)
    num = np.array([[1.0, 2.0], [3.0, 0.0], [2.0, 0.0]])
    den = np.array([[2.0, 4.0], [4.0, 0.0], [4.0, 0.0]])  # the second value is that of the first image alone
    low, high = interval(resampled_ratio(num, den, counts))
    assert low[0] < high[0] and np.isnan([low[1], high[1]]).all()
    found = paired_difference((num, den), (num / 2, den), counts)
    assert found.value[1] == 0.25 and found.p[0] <= 1
    assert np.isnan([found.p[1], found.ci_low[1], found.ci_high[1]]).all()


def test_a_head_that_one_image_alone_feeds_has_no_interval_but_its_layer_does():
    num, den = np.random.default_rng(0).random((5, 1, 2)), np.ones((5, 1, 2))
    num[1:, :, 1] = den[1:, :, 1] = 0
    rows = head_rows(num, den, resampling_matrix(5, 50), 0.5, {})
    overall, layer, first, second = rows
    assert np.isfinite([r["value"] for r in rows]).all()
    assert overall["ci_low"] < overall["ci_high"] and layer["ci_low"] < layer["ci_high"]
    assert first["ci_low"] < first["ci_high"]
    assert np.isnan([second["ci_low"], second["ci_high"]]).all()


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_one_image_have_values_only(name, tmp_path):
    single = random_study(examples=2)
    assert single.images == 1
    table = measure_all({name: METRICS[name]}, single)
    assert table["value"].notna().any() and table[LIMITS].isna().all(axis=None)
    write_table(tmp_path / "t.csv", table)
    assert read_table(tmp_path / "t.csv")[LIMITS].isna().all(axis=None)


def test_noun_frequency_and_differences_of_one_caption():
    one = {"e0": random_attention(0)}
    metrics = {"pos_mass": PosMass(), "frequency": NounFrequency()}
    table = compare(metrics, {"a": study_of(one), "b": study_of({"e0": random_attention(1)})}, [("a", "b")])
    assert table[LIMITS].isna().all(axis=None)
    assert len(select(table, measure="noun_frequency"))
    where = {"model": "a", "against": "b", "measure": "pos_mass", "condition": "NOUN", "layer": -1}
    assert np.isfinite(measured(table, **where)["value"].iloc[0])
    assert np.isnan(measured(table, **where, statistic="p")["value"].iloc[0])


def test_every_other_user_of_the_bootstrap():
    sample = Sample.of(["a", "a"], 50, 0)
    (row,) = mean_rows(sample, np.array([[1.0], [0.0]]), {"measure": "m"})
    assert row["value"] == 0.5 and np.isnan([row["ci_low"], row["ci_high"]]).all()
    assert np.isnan(bootstrap_mean(np.array([1.0, 0.0]), np.array(["a", "a"]))).all()
    scores = {OWN: np.array([-1.0]), OTHER: np.array([-2.0]), "tokens": np.array([2.0])}
    about = {"study": "e", "model": "m", "data": "d"}
    for row in gain_rows(scores, ["a"], about):
        assert np.isfinite(row["value"]) and np.isnan([row["ci_low"], row["ci_high"]]).all()
    curve = np.array([[0.0, 0.5, 0.2, 1.0, 0.6]])
    found = bootstrap_phases(curve, np.array(["a"]), resamples=20)
    assert found.phases.present_B4.all() and np.isnan(found.share_all)
    assert np.isnan([found.low_3, found.high_3, found.near_3]).all() and np.isnan(found.share_4).all()


def test_scores_of_one_caption(monkeypatch):
    monkeypatch.setenv("PATH", "")  # without Java: it would only take time
    monkeypatch.delenv("JAVA_HOME", raising=False)
    corpus = Corpus(ROOT, {"i": Scene("i", "x.png", 9, 9, "test")}, [Example("e", "i", "a red chair")], "toy")
    table = caption_table(corpus, "test", {"m": {"i": "a red chair"}}, "toy").set_index("measure")
    assert table.loc["BLEU-1", "value"] == pytest.approx(100) and table[LIMITS].isna().all(axis=None)


def test_the_figures_of_the_first_study_say_none():
    table = measure_all(METRICS, random_study(examples=2))
    spec = OmegaConf.load(ROOT / "conf/figure/grounding.yaml")
    with style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        notes = {}
        for name, entry in spec.items():
            if name == "learning":  # has a table of its own
                continue
            figure = instantiate(entry, _partial_=True)(table)
            figure.canvas.draw()
            notes[name] = figure.get_supxlabel()
    assert "heads above chance: not known (interval: none)" in notes["fig4_nouns"]
    assert "(interval: none)" in notes["fig5_pos"] or "not defined" in notes["fig5_pos"]
    assert not any("nan" in note for note in notes.values())


def test_the_figures_of_the_second_study_are_drawn_without_intervals():
    studies = {name: study_of({"e0": random_attention(i)}) for i, name in enumerate("ab")}
    metrics = {"pos_mass": PosMass(), "frequency": NounFrequency()}
    table = compare(metrics, studies, [("a", "b")])
    quantities = [{"title": "on nouns", "measure": "pos_mass", "condition": "NOUN"}]
    # A star without an interval: its place must not be NaN.
    table.loc[(table["measure"] == "pos_mass") & (table["statistic"] == "p"), "value"] = 0.01
    with style(), warnings.catch_warnings():
        warnings.simplefilter("error")
        parts_of_speech(table, "a", ["NOUN"]).canvas.draw()
        frequency(table, {"a": "A", "b": "B"}, ["positions"]).canvas.draw()
        figure = runs(table, quantities, {"a": "A", "b": "B"}, same_weights=["b"])
        figure.canvas.draw()
    (star,) = figure.axes[0].texts
    assert np.isfinite(star.get_position()).all()


def test_the_report_says_none():
    table = measure_all({"entropy": Entropy()}, random_study(examples=2))
    row = select(table, kind="cross", layer=-1, head=-1).iloc[0]
    assert quote(row).interval == "none"
    p_value = row.copy()
    p_value["statistic"] = "p"
    assert quote(p_value).interval == ""


def test_headline_numbers_without_a_value_stay_out_of_json(tmp_path):
    base = {"model": "m", "data": "d", "kind": "phases"}
    rows = [
        base | {"measure": "four phases", "value": float("nan")},
        base | {"measure": "turn", "value": 3.0},
    ]
    assert write_results(tmp_path, make_table(rows)) == {"m d phases turn": 3.0}
    text = (tmp_path / "metrics.json").read_text()
    found = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert found == {"about": {}, "metrics": {"m": {"d": {"phases turn": 3.0}}}}
