"""What the stages of the paper profile read is made by a stage or named in conf/paper_files.yaml."""

from __future__ import annotations

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
