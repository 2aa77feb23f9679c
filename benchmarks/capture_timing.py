"""Timing and memory of whole forward passes: one process, alternating, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch


def alternate(ways: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, float]:
    """Median seconds of each way; the order turns by one each round, after one warm-up of all."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _wait(device)
            start = time.perf_counter()
            ways[name]()
            _wait(device)
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def peak_extra(function: Callable[[], object], device: str) -> float:
    """MiB above what was held before, at the highest point of one call."""
    function()
    if device.startswith("cuda"):
        _wait(device)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        _wait(device)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    # Linux: writing 5 resets the high-water mark of resident memory.
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    function()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def print_table(title: str, rows: list[tuple[str, float, float]]) -> None:
    """Markdown; the first row is what others are compared with."""
    print(f"\n{title}\n\n| way | median s | × plain | peak extra MiB | × plain |\n|---|---|---|---|---|")
    _, seconds, memory = rows[0]
    for name, s, m in rows:
        print(f"| {name} | {s:.3f} | {s / seconds:.2f} | {m:.0f} | {m / memory:.2f} |", flush=True)
