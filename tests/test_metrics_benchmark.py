"""The benchmark's plain loop must give the numbers of the metrics, on every head."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.metrics import run


def test_the_plain_loop_agrees_on_every_number():
    result = run(examples=6, looped_examples=6, sentences=4, layers=2, heads=3, regions=9)
    # 2 groundings, 2 entropies, 2 sets and 6 tags, 8 directions; 6 heads.
    assert result["numbers"] == 6 * (2 + 2 + 2 + 6 + 8)
    assert result["difference"] < 1e-6
