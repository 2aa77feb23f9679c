"""The star of study 2's figure of runs: for one set of weights only, corrected over the figure."""

from __future__ import annotations

from conftest import ROOT
from matplotlib.text import Text
from omegaconf import OmegaConf

from attention_atlas.measures.table import make_table
from attention_atlas.plotting.style import style
from attention_atlas.studies.modality.figures import runs

MODELS = {"captioner": "Captioner", "blank": "Blank", "other": "Other", "gpt2": "GPT-2"}
QUANTITY = {"title": "nouns", "measure": "pos_mass", "condition": "NOUN"}


def stars(p: dict[str, float], same_weights: list[str]) -> list[float]:
    """Heights of the stars, which are the numbers of the runs."""
    base = {"kind": "decoder_self", "condition": "NOUN"}
    rows = [
        base | {"model": m, "measure": "pos_mass", "value": 0.4, "ci_low": 0.3, "ci_high": 0.5}
        for m in MODELS
    ]
    for model, value in p.items():
        test = {"model": "captioner", "against": model, "measure": "pos_mass", "statistic": "p"}
        rows.append(base | test | {"value": value})
    with style():
        figure = runs(make_table(rows), [QUANTITY], MODELS, same_weights)
    return [t.get_position()[1] for t in figure.findobj(Text) if t.get_text() == " *"]


def test_a_model_that_was_trained_apart_has_no_star() -> None:
    p = {"blank": 0.001, "other": 0.9, "gpt2": 0.001}
    assert stars(p, ["blank", "other"]) == [1]
    assert stars(p, []) == []


def test_stars_are_corrected_over_the_figure() -> None:
    assert stars({"blank": 0.03, "other": 0.9, "gpt2": 0.001}, ["blank", "other"]) == []
    assert stars({"blank": 0.03, "gpt2": 0.001}, ["blank"]) == [1]


def test_runs_of_the_same_weights_are_named_right() -> None:
    """conf/figure/modality.yaml: the runs that use the captioner's own weights, and no others."""
    figure = OmegaConf.load(ROOT / "conf/figure/modality.yaml").runs
    known = OmegaConf.to_container(OmegaConf.load(ROOT / "conf/study/modality.yaml").runs)
    own = "${study.runs.captioner.model}"
    assert set(figure.same_weights) == {name for name, run in known.items() if run["model"] == own}
