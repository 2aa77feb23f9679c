"""attention.h5: write and read speed, size, and one query row, for filters and chunk shapes.

python benchmarks/store.py
Data: six layers of synthetic causal attention, 32 heads, S = 640, float16 (157 MB), softmax of noise.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import torch

from attention_atlas.recording import AttentionStore, AttentionWriter, Axis

LAYERS, HEADS, LENGTH = 6, 32, 640
ROUNDS = 5


def data() -> np.ndarray:
    score = 2 * torch.randn(LAYERS, HEADS, LENGTH, LENGTH, generator=torch.Generator().manual_seed(0))
    hidden = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
    return score.masked_fill(hidden, float("-inf")).softmax(-1).half().numpy()


def plain_ways() -> dict[str, dict[str, Any]]:
    one = (1, 1, LENGTH, LENGTH)
    return {
        "none, contiguous": {},
        "gzip-4, automatic chunks": {"compression": "gzip", "compression_opts": 4, "chunks": True},
        "Bitshuffle-LZ4, (1,1,S,S)": {"chunks": one, **hdf5plugin.Bitshuffle(cname="lz4")},
    }


def median(function: Callable[[], Any]) -> tuple[float, float]:
    """(CPU, wall) seconds, medians. On a shared machine, rely on the CPU seconds."""
    times = []
    for _ in range(ROUNDS):
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = (statistics.median(column) for column in zip(*times))
    return cpu, wall


def row(name: str, size: int, *seconds: tuple[float, float], megabytes: float) -> None:
    write, read, last = seconds
    speeds = " | ".join(f"{megabytes / s:.0f}" for pair in (write, read) for s in pair)
    ratio = 2 * megabytes * 1e6 / size
    print(f"| {name} | {ratio:.1f}× | {speeds} | {1000 * last[0]:.1f} | {1000 * last[1]:.1f} |", flush=True)


def main() -> None:
    attn = data()
    megabytes = attn.nbytes / 1e6
    axes = {"position": Axis([str(i) for i in range(LENGTH)])}
    print(
        "\n| way | smaller than float32 | write MB per CPU s | per wall s | read MB per CPU s | per wall s",
        end="",
    )
    print(" | last row of all heads, CPU ms | wall ms |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "attention.h5"
        for name, options in plain_ways().items():

            def write(options: dict[str, Any] = options) -> None:
                with h5py.File(path, "w") as file:
                    file.create_dataset("x", data=attn, **options)

            def read() -> Any:
                with h5py.File(path, "r") as file:
                    return file["x"][()]

            def last() -> Any:
                with h5py.File(path, "r") as file:
                    return file["x"][:, :, -1]

            seconds = median(write)
            row(name, path.stat().st_size, seconds, median(read), median(last), megabytes=megabytes)
        for filter in ("bitshuffle", "gzip"):

            def store(filter: str = filter) -> None:
                path.unlink(missing_ok=True)
                kinds = {"self": ("position", "position")}
                with AttentionWriter(path, model="m", config_hash="h", kinds=kinds, filter=filter) as writer:
                    writer.write("x", {"self": attn}, axes)

            seconds = median(store)
            with AttentionStore(path) as opened:
                whole = median(lambda: opened.read("x", "self"))
                one = median(lambda: opened.read("x", "self", rows=-1))
            name = f"the store, {filter} (write: shard, check, assemble; read: check, to float32)"
            row(name, path.stat().st_size, seconds, whole, one, megabytes=megabytes)


if __name__ == "__main__":
    main()
