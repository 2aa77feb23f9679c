"""The rehearsal of the paper profile: every stage and figure, on made-up corpora in the published layouts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from rehearsal.rehearsal import LIMIT, rehearse

from attention_atlas.plotting.draw import of_profile
from attention_atlas.workflow.paper_check import check_entry, read_list
from attention_atlas.workflow.parallel import stage_needs

# The other worker's end-to-end run is the group e2e.
pytestmark = [pytest.mark.e2e, pytest.mark.rehearsal, pytest.mark.xdist_group("paper")]

PROFILE = "paper"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("paper") / "copy"
    assert rehearse(copy, jobs=1) == 0, "see the lines above"
    return copy


def test_nothing_but_sizes_and_the_machine_is_replaced(folder: Path) -> None:
    params = yaml.safe_load((folder / "params.yaml").read_text())
    assert params["profile"] == PROFILE and params["limit"] == LIMIT
    published = yaml.safe_load((ROOT / "conf/profiles/paper.yaml").read_text())
    for name, value in published.items():
        if name not in ("device", "limit"):
            given = params[name]
            assert (given if not isinstance(value, dict) else {k: given[k] for k in value}) == value, name
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert (folder / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path


def test_every_file_that_the_profile_needs_is_written(folder: Path) -> None:
    wanted = [
        entry for entry in read_list(ROOT / "conf/paper_files.yaml")["files"] if not entry.get("optional")
    ]
    missing = [e["path"] for e in wanted if check_entry(e, folder, hashes=False).state == "missing"]
    assert not missing, "write them in tests/rehearsal/"


def test_every_stage_was_run(folder: Path) -> None:
    run = yaml.safe_load((folder / "dvc.lock").read_text())["stages"]
    assert set(stage_needs(folder)) == set(run) and len(run) > 40
    for name, stage in run.items():
        for out in stage["outs"]:
            assert (folder / out["path"]).exists(), f"{name}: {out['path']}"


def of_paper(group: str, name: str) -> Path:
    """The file that the paper profile reads."""
    own = ROOT / f"conf/profiles/paper/{group}/{name}.yaml"
    return own if own.exists() else ROOT / f"conf/{group}/{name}.yaml"


def figures() -> dict[str, list[str]]:
    """Study -> names of the figures that conf/figure gives the paper profile."""
    studies = yaml.safe_load((ROOT / "params.yaml").read_text())["studies"]
    read = {study: yaml.safe_load(of_paper("figure", study).read_text()) for study in studies}
    for entries in read.values():
        entries.pop("defaults", None)
    return {study: list(of_profile(entries, PROFILE)) for study, entries in read.items()}


@pytest.mark.parametrize("study", figures())
def test_every_figure_was_drawn(folder: Path, study: str) -> None:
    drawn = folder / "results" / study / "figures"
    wanted = figures()[study]
    assert (
        sorted(p.stem for p in drawn.glob("*.png"))
        == sorted(wanted)
        == sorted(p.stem for p in drawn.glob("*.pdf"))
    )
    assert len(wanted) >= 5
    for name in wanted:
        assert (drawn / f"{name}.png").stat().st_size > 5000, name


def test_the_report_quotes_every_number(folder: Path) -> None:
    report = (folder / "results" / "report.html").read_text()
    for study in figures():
        assert f'id="{study}"' in report
    for number in ("39.68", "14.97", "0.313", "44.39", "62.4", "96.6"):
        assert number in report, f"the paper's {number} is not in the report"
    assert "linkers_gold" in report, "how to supply gold links"
    # Tables of the paper with our numbers: rows that nothing matches would be blank.
    assert len(re.findall("<figure", report)) == sum(map(len, report_figures().values()))


def report_figures() -> dict[str, list[Any]]:
    names = yaml.safe_load((ROOT / "params.yaml").read_text())["studies"]
    read = {n: yaml.safe_load(of_paper("report", n).read_text()) for n in names}
    return {
        n: [e for e in spec["figures"] if PROFILE in e.get("profiles", [PROFILE])] for n, spec in read.items()
    }


def test_the_report_shows_the_figures_of_the_profile() -> None:
    drawn = figures()
    for name, entries in report_figures().items():
        shown = [entry["file"] for entry in entries]
        assert set(shown) <= set(drawn[name]), name
