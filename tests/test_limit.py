"""The parameter `limit`: it reduces every size of the configuration, and changes nothing if it is null."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from omegaconf import OmegaConf
from test_dvc_graph import graph

from attention_atlas.errors import ConfigError
from attention_atlas.workflow.compose import compose
from attention_atlas.workflow.limit import LISTS, kind_of, limited, longer, numbers
from attention_atlas.workflow.params import check_params, read_params
from attention_atlas.workflow.profiles import set_params

LIMIT = {"steps": 3, "examples": 50, "batch": 2, "width": 24}
MOST = LIMIT | {"slow": 5, "single": 1}


@pytest.fixture(scope="module", params=["mini", "paper"])
def configurations(request: Any) -> dict[str, Any]:
    """What each stage of a profile is composed of, without Hydra's own section."""
    stages = graph(request.param).stages
    return {
        name: compose(ROOT, stage.script, [*stage.words[1:], f"profile={request.param}"])
        for name, stage in stages.items()
    }


def plain(cfg: Any) -> dict[str, Any]:
    value: Any = OmegaConf.to_container(cfg, resolve=True)
    return value


def test_every_number_is_named_by_a_list(configurations: dict[str, Any]) -> None:
    unnamed = {
        path
        for cfg in configurations.values()
        for _, _, path in numbers(cfg)
        if not kind_of(path) and path != "limit"
    }
    assert not unnamed, (
        "new numbers: say in src/attention_atlas/workflow/limit.py whether the limit cuts them"
    )


def test_effort_multiplies_every_training(configurations: dict[str, Any]) -> None:
    for name, cfg in configurations.items():
        before, after = plain(longer(cfg.copy())), plain(longer(OmegaConf.merge(cfg, {"effort": 2.5})))
        assert "effort" not in after
        if "train" not in before:
            assert after == before, f"{name} trains nothing"
            continue
        old, new = before["train"]["loop"], after["train"]["loop"]
        assert new["epochs"] == max(1, round(2.5 * old["epochs"])), name
        assert new.get("max_steps") == (old.get("max_steps") and round(2.5 * old["max_steps"])), name
        assert {k: v for k, v in new.items() if k not in ("epochs", "max_steps")} == {
            k: v for k, v in old.items() if k not in ("epochs", "max_steps")
        }, name


def test_wrong_effort_is_named(configurations: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="effort: must be above 0"):
        longer(OmegaConf.merge(next(iter(configurations.values())), {"effort": 0}))


def test_null_changes_nothing(configurations: dict[str, Any]) -> None:
    for name, cfg in configurations.items():
        before = plain(cfg)
        assert before.pop("limit") is None
        assert plain(limited(cfg.copy())) == before, name


def test_it_reaches_every_size(configurations: dict[str, Any]) -> None:
    for name, cfg in configurations.items():
        cut = cfg.copy()
        cut["limit"] = LIMIT
        before, after = plain(cfg), plain(limited(cut))
        assert "limit" not in after
        kept_before = {path: node[key] for node, key, path in numbers(cfg) if kind_of(path) == "kept"}
        for node, key, path in numbers(OmegaConf.create(after)):
            kind, value = kind_of(path), node[key]
            if kind in MOST:
                assert value is None or 0 <= value <= MOST[kind], f"{name}: {path}: {value}"
                if kind == "examples" and "samples" not in path:
                    assert value, f"{name}: {path}: all there are"
            elif not path.endswith("#"):
                assert value == kept_before[path], f"{name}: {path}"
        if "train" in before:
            loop = after["train"]["loop"] | (after["model"].get("training") or {}).get("loop", {})
            assert 1 <= loop["max_steps"] <= LIMIT["steps"] and loop["epochs"] <= LIMIT["steps"], name


def test_no_samples_stay_none() -> None:
    """Among the samples of an analysis, 0 means none and null means all."""
    cfg = compose(ROOT, "dump", ["study=vlm_phases", "dump.samples={lens: 0, pairs: null, context: 9}"])
    cfg["limit"] = LIMIT | {"examples": 8}
    samples = limited(cfg).dump.samples
    assert (samples.lens, samples.pairs, samples.context) == (0, 8, 8)


def test_no_pattern_is_idle(tmp_path: Path) -> None:
    """A pattern that no number of conf/ fits is a typing error or is left from a removed key."""
    paths = set()
    for file in (ROOT / "conf").rglob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        paths |= {line.split(":")[0].strip(" -{") for line in text.splitlines() if ":" in line}
        paths |= {part.split(":")[0].strip() for part in text.replace("{", ",").split(",") if ":" in part}
    for pattern in [p for patterns in LISTS.values() for p in patterns]:
        last = pattern.removesuffix(".#").rsplit(".", 1)[-1]
        if not set("*?") & set(last):
            assert any(p.split(".")[-1] == last for p in paths | {"workers", "seed", "alignment"}), pattern


def test_wrong_limits_are_named(configurations: dict[str, Any]) -> None:
    cfg = next(iter(configurations.values()))
    for wrong, words in (
        ({"steps": 0}, "limit.steps: must be at least 1"),
        ({"width": 32}, "must be a multiple of 24"),
    ):
        cut = cfg.copy()
        cut["limit"] = LIMIT | wrong
        with pytest.raises(ConfigError, match=words):
            limited(cut)


def test_the_parameter(tmp_path: Path) -> None:
    params = read_params(ROOT / "params.yaml")
    assert params["limit"] is None
    check_params(params | {"limit": LIMIT})
    with pytest.raises(ConfigError, match=r"limit\.batch: Missing"):
        check_params(params | {"limit": {"steps": 1, "examples": 1, "width": 24}})
    shutil.copy(ROOT / "params.yaml", tmp_path)
    set_params(tmp_path, {"limit": LIMIT})
    assert yaml.safe_load((tmp_path / "params.yaml").read_text())["limit"] == LIMIT
