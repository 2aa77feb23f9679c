"""python -m attention_atlas.recording.inspect: prints the content of a file, or one line for an error."""

import subprocess
import sys

import numpy as np
import pytest

from attention_atlas.recording import AttentionWriter, Axis, StatisticsWriter
from attention_atlas.recording.inspect import main

KINDS = {"cross": ("target", "region")}


@pytest.fixture
def files(tmp_path):
    axes = {
        "target": Axis(["a", "dog", "<eos>"], ["text", "text", "eos"]),
        "region": Axis(["dog"] * 40, ["image"] * 40),
    }
    rows = np.full((2, 3, 3, 40), 0.5 / 39)
    rows[..., 7] = 0.5
    with AttentionWriter(tmp_path / "attention.h5", model="tiny", config_hash="abc", kinds=KINDS) as writer:
        writer.write("x1", {"cross": rows}, axes)
    groups = {"region": ["left", "right"]}
    mass = np.broadcast_to(np.array([0.25, 0.75]), (2, 3, 3, 2))
    statistics = StatisticsWriter(
        tmp_path / "statistics.h5", model="tiny", config_hash="abc", kinds=KINDS, groups=groups
    )
    with statistics as writer:
        writer.write("x1", {"cross": {"mass": mass, "entropy": np.full((2, 3, 3), 1.5)}}, axes)
    return tmp_path


def test_attention_is_described_and_drawn(files, capsys):
    assert main([str(files / "attention.h5"), "--validate"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "convention: used",
        "config_hash: abc",
        "kind cross: target → region",
        "examples: 1",
        "valid:",
        "x1, cross, layer 1, mean of 3 heads",
        "<eos> (eos)",
    ):
        assert part in shown, shown
    row = next(line for line in shown.splitlines() if line.startswith("dog"))
    assert row.endswith("█".rjust(8) + " " * 32) or row.rstrip().endswith("█")
    assert (
        main([str(files / "attention.h5"), "--layer", "0", "--head", "2", "--png", str(files / "map.png")])
        == 0
    )
    assert (files / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "layer 0, head 2" in capsys.readouterr().out


def test_statistics_are_tabled(files, capsys):
    assert main([str(files / "statistics.h5")]) == 0
    shown = capsys.readouterr().out
    assert "groups of region: left, right" in shown and "mass by head in layer 1" in shown
    assert "0.250" in shown and "0.750" in shown
    assert main([str(files / "statistics.h5"), "--statistic", "entropy"]) == 0
    assert "1.500" in capsys.readouterr().out


def test_what_is_wrong_is_one_line(files, capsys):
    (files / "text.h5").write_text("no HDF5")
    for arguments, match in [
        ([str(files / "none.h5")], "no such file"),
        ([str(files / "text.h5")], "truncated or not HDF5"),
        ([str(files / "attention.h5"), "--id", "x2"], "no example 'x2'"),
        ([str(files / "attention.h5"), "--kind", "crosss"], "did you mean 'cross'"),
        ([str(files / "attention.h5"), "--layer", "2"], "--layer: 2 is outside 0..1"),
        ([str(files / "statistics.h5"), "--statistic", "masse"], "did you mean 'mass'"),
    ]:
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and match in error, error


def test_it_runs_as_a_module(files):
    command = [sys.executable, "-m", "attention_atlas.recording.inspect", str(files / "attention.h5")]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "schema: atlas.attention/1" in result.stdout and not result.stderr
