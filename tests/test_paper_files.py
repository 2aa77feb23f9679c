"""What the stages of the paper profile read is made by a stage or named in conf/paper_files.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from conftest import ROOT
from test_dvc_graph import graph

from attention_atlas.workflow.paper_check import read_list


def related(path: str, others: set[str]) -> bool:
    """Whether one of the others is this path, lies in it, or holds it."""
    return any(path == o or path.startswith(f"{o}/") or o.startswith(f"{path}/") for o in others)


def test_raw_data_is_in_the_list() -> None:
    listed = {str(entry["path"]) for entry in read_list(ROOT / "conf/paper_files.yaml")["files"]}
    for name, stage in graph("paper").stages.items():
        for path in stage.inputs:
            if path.startswith("data/raw/"):
                assert related(path, listed), f"{name}: {path}: name it in conf/paper_files.yaml"


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """(key, text) of every text in a composed configuration."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item, key)
    elif isinstance(value, str):
        yield key, value


def test_hub_weights_are_in_the_list() -> None:
    folders = {path.name for path in ROOT.iterdir()} | {"data", "results", "logs"}
    found = set()
    for stage in graph("paper").stages.values():
        for key, text in leaves(stage.config):
            owner = text.partition("/")[0]
            if key == "title":
                continue
            hub_id = re.fullmatch(r"[A-Za-z][\w.-]+/[\w.-]+", text) and owner not in folders
            if hub_id or (key == "weights" and "/" not in text):
                found.add(text)
    assert {"distilgpt2", "llava-hf/llava-1.5-13b-hf"} <= found
    needs = " ".join(str(need["what"]) for need in read_list(ROOT / "conf/paper_files.yaml")["needs"])
    assert sorted(name for name in found if name not in needs) == []
