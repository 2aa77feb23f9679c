"""Sweeps over models and alignments: what composes, what is skipped and why, what is already done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT
from omegaconf import OmegaConf

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.sweeps import skip_reason, skipped, uses_alignment


def composed(*overrides: str, stage: str = "train") -> Any:
    return compose(ROOT, stage, ["study=alignment", *overrides], with_hydra=True)


@pytest.mark.parametrize(
    ("model", "data"),
    [("scan", "rooms_captions"), ("mac", "tabletop_questions"), ("mac_blind", "tabletop_questions")],
)
def test_a_model_brings_its_data_and_training(model: str, data: str) -> None:
    cfg = composed(f"model={model}", "alignment=general_kq")
    assert cfg.data.name == data and cfg.train.task._target_ and cfg.alignment.name == "general_kq"
    OmegaConf.set_readonly(cfg.hydra, False)
    assert cfg.hydra.sweep.subdir == f"{model}_{data}/general_kq/seed0"
    assert composed(f"model={model}", "data=rooms_captions").data.name == "rooms_captions"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").rglob("trained/alignment/*.yaml")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_each_model_of_the_study_names_data_and_training(path: Path) -> None:
    chosen = {
        key.strip("/"): value for entry in OmegaConf.load(path)["defaults"] for key, value in entry.items()
    }
    assert set(chosen) == {"data", "train"}


def test_what_takes_an_alignment() -> None:
    for text, takes in (
        ("${alignment}", True),
        ("${oc.select:alignment,null}", True),
        ("${alignments.dot}", False),
        ("alignment", False),
    ):
        assert uses_alignment(OmegaConf.create({"x": {"y": [text]}})) is takes


def test_senseless_jobs_are_skipped_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    cfg = composed("model=vilt", "alignment=dot")
    assert skipped(cfg, in_sweep=True)
    assert capsys.readouterr().out.strip() == (
        "skipped: model vilt: not part of this study; conf/trained/alignment/ has no vilt.yaml"
    )
    with pytest.raises(ConfigError, match="not part of this study"):
        skipped(cfg, in_sweep=False)
    blind = composed("model=mac_blind", "alignment=cosine")
    assert skipped(blind, in_sweep=True)
    assert "it takes no alignment; trained once, with dot" in capsys.readouterr().out
    assert not skipped(blind, in_sweep=False), "a single command gets the model it asks for"
    assert skip_reason(composed("model=mac_blind", "alignment=dot")) == ""
    assert skip_reason(composed("model=mac", "alignment=cosine")) == ""


def test_other_studies_are_not_touched() -> None:
    assert skip_reason(compose(ROOT, "train", ["study=grounding"])) == ""


def test_runs_compose_with_every_alignment() -> None:
    cfg = composed("model=scan", "data=tabletop_captions", "trainer=every_alignment")
    assert len(cfg.alignments) == 8 and cfg.alignments.dot.name == "dot" and cfg.alignment is None
    assert cfg.data.name == "tabletop_captions"
