"""Seconds per update of the mini models: threads of one process against processes of one thread.

    python benchmarks/training_processes.py               # after worlds and features are built
    python benchmarks/training_processes.py "study=vilt_layers data=rooms_questions model=vilt train=vqa"

All ways train on the same images per update; prints the ratios to one process with all threads.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the stages

MODELS = (
    "study=grounding data=rooms model=object_relation train=captioning",
    "study=grounding data=rooms model=lstm train=captioning",
    "study=modality data=rooms_captions model=captioner_start train=captions",
    "study=vilt_layers data=rooms_questions model=vilt train=vqa",
    "study=vlm_phases data=rooms_captions model=clip_tower train=contrastive",
)
WARM, TIMED = 5, 25  # updates


def seconds_per_update(cfg: Any, parts: int, threads: int, join: Callable[[], None]) -> float:
    """`parts`: number of batches per update."""
    from contextlib import nullcontext

    import torch
    from hydra.utils import instantiate

    from attention_atlas.models.run_folder import build_model
    from attention_atlas.regions.features_file import FeaturesFile
    from attention_atlas.training.loop import train
    from attention_atlas.training.run import build_task, run_config
    from attention_atlas.training.settings import TrainSettings

    model_config, training, seed = run_config(cfg)
    loop = TrainSettings.read(training["loop"])
    cfg.train.task.batch_size = training["task"]["batch_size"] * loop.accumulate // parts
    task = build_task(cfg)
    path = training.get("features")
    with FeaturesFile(path) if path else nullcontext() as file:
        task.prepare(instantiate(cfg.data.reader), file)
        join()
        torch.manual_seed(seed)
        model = build_model(model_config, getattr(task, "vocab", None), **task.model_sizes())
        task.validate = lambda model: {task.best[0]: 0.0}
        taken = []
        for updates in (WARM, WARM + TIMED):
            settings = dataclasses.replace(loop, max_steps=updates * parts, accumulate=parts, threads=threads)
            with tempfile.TemporaryDirectory() as work:
                start = time.perf_counter()
                train(task, model, settings, Path(work), seed=seed)
                taken.append(time.perf_counter() - start)
    return (taken[1] - taken[0]) / TIMED


def main() -> None:
    parser = argparse.ArgumentParser(description="Threads against processes, in seconds per update.")
    parser.add_argument("models", nargs="*", default=MODELS, help="Hydra overrides of a train stage")
    models = parser.parse_args().models

    from attention_atlas.training.processes import together
    from attention_atlas.workflow.compose import compose

    cores = os.cpu_count() or 1
    ways = {f"{cores} threads": (1, cores), "1 thread": (1, 1), "2 processes": (2, 1)}
    print(f"{cores} cores; seconds per update, and the time of the first way over it\n")
    print("| model | " + " | ".join(ways) + " |\n|" + "---|" * (len(ways) + 1))
    for line in models:
        taken = []
        for parts, threads in ways.values():
            cfg = compose(Path.cwd(), "train", line.split())
            arguments = {"cfg": cfg, "parts": parts, "threads": threads}
            taken.append(together(parts, seconds_per_update, arguments, {}))
        cells = [f"{s:.3f} ({taken[0] / s:.2f} ×)" for s in taken]
        name = next(word for word in line.split() if word.startswith("model=")).removeprefix("model=")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
