"""Every baseline is trained as the model that it is compared with, in every profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from conftest import ROOT
from test_dvc_graph import graph

from attention_atlas.training.run import run_config
from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.graph import Stage

PROFILES = ("mini", "smoke", "paper")
# What a blind model may have otherwise: its name, that it is blind, and what only an image could teach.
# Without an alignment, a model has that of its own paper.
MODEL = {"name", "title", "blind", "alignment"}
TASK = {"naming", "knowledge", "grid", "patch_weight", "asked_weight"}
UPDATES = ("epochs", "max_steps", "accumulate", "validate_every", "validate_steps")


def base_of(model: str) -> str:
    """The file in conf/model that a model's own file begins with, or the model itself."""
    listed = yaml.safe_load((ROOT / f"conf/model/{model}.yaml").read_text()).get("defaults", [])
    return next((name for name in listed if name != "_self_"), model)


def trainings(profile: str) -> list[Stage]:
    return [stage for stage in graph(profile).stages.values() if stage.script == "train"]


def blind_pairs(profile: str) -> Iterator[tuple[str, str, list[str]]]:
    """(blind model, the model it is compared with, the words of the stage that trains it)."""
    for stage in trainings(profile):
        model = stage.config["model"]
        if model.get("blind"):
            yield model["name"], base_of(model["name"]), stage.words


def trained(model: str, profile: str, given: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model's and the training's configuration, as a stage resolves them."""
    script, *choices = given
    cfg = compose(ROOT, script, [*choices, f"model={model}", f"profile={profile}"])
    model_config, training, _ = run_config(cfg)
    return model_config, training


def without(values: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_blind_model_is_the_same_model_trained_alike_without_the_image(profile: str) -> None:
    """Class, width, layers, examples, batches, updates, rates: everything but the image."""
    pairs = list(blind_pairs(profile))
    assert len(pairs) == (4 if profile == "paper" else 5)  # published vision LLMs are not trained
    for blind, base, given in pairs:
        (blind_model, blind_training), (model, training) = (trained(m, profile, given) for m in (blind, base))
        assert blind_model["blind"] and not model.get("blind"), blind
        assert without(blind_model, MODEL) == without(model, MODEL), blind
        assert blind_training["loop"] == training["loop"], blind
        assert without(blind_training["task"], TASK) == without(training["task"], TASK), blind


@pytest.mark.parametrize("profile", PROFILES)
def test_every_blind_model_is_compared_with_one(profile: str) -> None:
    """No configuration of a blind model is separate, where it could drift from that of its model."""
    compared = {blind for blind, _, _ in blind_pairs(profile)}
    for path in (ROOT / "conf/model").glob("*.yaml"):
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        if values.get("blind") is True:
            assert [d for d in values["defaults"] if d != "_self_"], path
            known = {blind for name in PROFILES for blind, _, _ in blind_pairs(name)}
            assert path.stem in known, path
    assert all((ROOT / f"conf/model/{blind}.yaml").is_file() for blind in compared)


@pytest.mark.parametrize("profile", PROFILES)
def test_other_baselines_see_as_many_examples_in_as_many_updates(profile: str) -> None:
    """A captioner of another architecture keeps its sizes and rates; a control differs in its images."""
    captioners = [s.words for s in trainings(profile) if s.name.startswith("grounding_train")]
    (_, one), (_, other) = (trained(m, profile, captioners[0]) for m in ("lstm", "object_relation"))
    assert one["task"] == other["task"]
    assert [one["loop"].get(name) for name in UPDATES] == [other["loop"].get(name) for name in UPDATES]
    data = "coco_captions" if profile == "paper" else "rooms_captions"
    given = ["train", "study=modality", f"data={data}", "train=captions"]
    (start, one), (unpaired, other) = (
        trained(m, profile, given) for m in ("captioner_start", "captioner_unpaired")
    )
    assert without(start, {"name", "title"}) == without(unpaired, {"name", "title"})
    assert one["loop"] == other["loop"]
    assert without(one["task"], {"images"}) == without(other["task"], {"images"})
