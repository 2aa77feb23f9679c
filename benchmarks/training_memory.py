"""Seconds per update of the mini models, one thread: freed memory returned to the system or kept.

    python benchmarks/training_memory.py               # after worlds and features are built

A separate process for each measurement, as the choice cannot be undone; alternating, medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

MORE = (
    "study=vlm_phases data=rooms_captions model=llama_text train=vlm_text",
    "study=vlm_phases data=rooms_captions model=llava_mini train=vlm_tuning",
)
WAYS = ("given back", "kept")


def one(line: str, way: str) -> None:
    """Print the seconds per update of one model, in this process."""
    from attention_atlas.workflow.memory import keep_freed_memory

    if way == "kept":
        keep_freed_memory()
    from training_processes import seconds_per_update

    from attention_atlas.workflow.compose import compose

    print(seconds_per_update(compose(Path.cwd(), "train", line.split()), 1, 1, lambda: None))


def main() -> None:
    from training_processes import MODELS

    parser = argparse.ArgumentParser(description="Freed memory returned or kept, in seconds per update.")
    parser.add_argument(
        "models", nargs="*", default=(*MODELS, *MORE), help="Hydra overrides of a train stage"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.models[0], arguments.one)
        return
    print(f"{os.cpu_count()} cores, one thread; seconds per update, and the second way over the first\n")
    print("| model | " + " | ".join(WAYS) + " | ratio |\n|" + "---|" * (len(WAYS) + 2))
    for line in arguments.models:
        taken: dict[str, list[float]] = {way: [] for way in WAYS}
        for _ in range(arguments.rounds):
            for way in WAYS:
                command = [sys.executable, __file__, line, "--one", way]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                taken[way].append(float(done.stdout.split()[-1]))
        first, second = (statistics.median(taken[way]) for way in WAYS)
        name = next(word for word in line.split() if word.startswith("model=")).removeprefix("model=")
        print(f"| {name} | {first:.3f} | {second:.3f} | {second / first:.2f} |", flush=True)


if __name__ == "__main__":
    main()
