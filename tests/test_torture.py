"""The short form of tests/torture.py: two stages are killed, run out of disk and lose their DVC."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from torture import Graph, SkippedError, Torture


@pytest.mark.slow
def test_a_toy_graph_under_faults_ends_with_the_outputs_of_an_undisturbed_run(tmp_path: Path) -> None:
    torture = Torture(Graph("toy"), kills=2, seed=0, folder=tmp_path)
    assert len(torture.wanted) == 2
    assert "2 of 2 outputs equal" in torture.kill()
    assert "refused in one line" in torture.truncate()
    with contextlib.suppress(SkippedError):  # mounting needs root
        assert "no traceback" in torture.disk()


def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: outputs that differ are not called equal."""
    torture = Torture(Graph("toy"), kills=0, seed=0, folder=tmp_path)
    torture._wanted = {"data/a.h5": "0", "data/b.json": "1"}
    monkeypatch.setattr(torture, "finished", lambda *_, **__: {"data/a.h5": "0", "data/b.json": "2"})
    with pytest.raises(AssertionError, match=r"1 of 2 outputs differ: \['data/b.json'\]"):
        torture.same(tmp_path)
