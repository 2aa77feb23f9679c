"""What the benchmarks compare gives the same numbers."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))


def test_the_plain_loop_agrees_on_every_number():
    """The metrics and their plain loop, on every head."""
    from metrics import run

    result = run(examples=6, looped_examples=6, sentences=4, layers=2, heads=3, regions=9)
    # 2 groundings, 2 entropies, 2 sets and 6 tags, 8 directions; 6 heads.
    assert result["numbers"] == 6 * (2 + 2 + 2 + 6 + 8)
    assert result["difference"] < 1e-6


def test_ways_of_capture_give_the_logits_of_the_plain_model():
    import torch
    from capture_large import build, ways

    found = ways(build("tiny", 2, "cpu", torch.float32), 40, {})
    assert set(found) >= {"plain sdpa", "fused capture", "eager, output_attentions"}
    logits = {name: way() for name, way in found.items()}
    plain = logits.pop("plain sdpa")
    assert torch.equal(logits["fused capture"], plain)
    for name, other in logits.items():
        torch.testing.assert_close(other, plain, atol=1e-5, rtol=0, msg=name)
