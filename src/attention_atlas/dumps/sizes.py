"""Estimate the size of a dump from a few of its examples, and show it next to the free disk space."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from attention_atlas.dumps.batches import DumpTask, Found, Passes, part_of

SAMPLES = 5  # batches, spread over all; the first two examples of each are measured


def print_sizes(
    task: DumpTask,
    passes: Passes,
    todo: list[list[str]],
    done: Collection[str],
    writers: Mapping[str, Any],
    place: Path,
) -> None:
    """Print the bytes per example of each statistic, and the total of the examples not yet `done`. `place`:
    the folder that will hold the files."""
    chosen = [todo[i * (len(todo) - 1) // max(1, SAMPLES - 1)] for i in range(SAMPLES)]
    unique = {tuple(ids): ids for ids in chosen}.values()
    samples = [found for ids in unique for found in passes(task.batch(ids).first(2))]
    left = sum(id not in done for ids in todo for id in ids)
    print("\n".join(table(samples, writers, left, shutil.disk_usage(place).free)), flush=True)


def table(samples: list[Found], writers: Mapping[str, Any], left: int, free: int) -> list[str]:
    """Lines: mean bytes per example by file and statistic; total of `left` examples, and bytes `free`."""
    lines = [f"bytes per example, from {len(samples)} of {left:,}:"]
    each = 0.0
    for name, writer in writers.items():
        total: Counter[str] = Counter()
        for found in samples:
            total.update(writer.stored(found.id, part_of(name, found.values), found.axes))
        for part, size in total.items():
            lines.append(f"  {name:<14} {part:<12} {size / len(samples):>15,.0f}")
        each += sum(total.values()) / len(samples)
    # While a file is assembled, its examples exist twice.
    needed = 2 * each * left
    lines.append(f"{left:,} examples: {human(each * left)}, until they are put together {human(needed)}")
    enough = "" if needed <= free else "; NOT ENOUGH: store fewer statistics, or make space"
    lines.append(f"free: {human(free)}{enough}")
    return lines


def human(size: float) -> str:
    """Bytes in decimal units.

    >>> human(999), human(1_234_000), human(5e12)
    ('999 B', '1.2 MB', '5.0 TB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
