"""Time and memory of whole forward passes: one process, alternating, medians.

On a shared machine wall time is unreliable: use the CPU time of one thread (`--threads 1`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass
class Cost:
    """Medians: wall seconds, CPU seconds of all threads, MiB above the memory before the call."""

    wall: float
    cpu: float
    extra: float


def alternate(ways: dict[str, Callable[[], object]], rounds: int, device: str) -> dict[str, Cost]:
    """Run every way once per round, with rotating order, after one warm-up of all."""
    found: dict[str, list[Cost]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(rounds + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            cost = _measure(ways[name], device)
            if turn:
                found[name].append(cost)
    return {
        name: Cost(*(statistics.median(getattr(c, f) for c in costs) for f in ("wall", "cpu", "extra")))
        for name, costs in found.items()
    }


def _measure(function: Callable[[], object], device: str) -> Cost:
    cuda = device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() / 2**20
    else:
        # Linux: writing 5 resets the high-water mark of resident memory.
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    if cuda:
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    peak = torch.cuda.max_memory_allocated() / 2**20 if cuda else _status("VmHWM")
    return Cost(wall, cpu, peak - before)


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def print_table(title: str, costs: dict[str, Cost]) -> None:
    """Print as Markdown; the first row is the reference."""
    print(f"\n{title}\n")
    print("| way | CPU s | × plain | wall s | peak extra MiB | × plain |\n|---|---|---|---|---|---|")
    plain = next(iter(costs.values()))
    for name, cost in costs.items():
        memory = f"{cost.extra / plain.extra:.2f}" if plain.extra >= 1 else "–"
        times = f"{cost.cpu:.3f} | {cost.cpu / plain.cpu:.2f} | {cost.wall:.3f}"
        print(f"| {name} | {times} | {cost.extra:.0f} | {memory} |", flush=True)
