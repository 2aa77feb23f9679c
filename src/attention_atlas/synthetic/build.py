"""Rendering a world in several processes: resumable, with results independent of the number of workers."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import multiprocessing
import os
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from attention_atlas.data.corpus import SPLITS
from attention_atlas.errors import ConfigError, did_you_mean
from attention_atlas.files import atomic_path, sha256, write_json, write_jsonl
from attention_atlas.progress import progress
from attention_atlas.synthetic.world import Made, World

CHUNK = 8  # scenes per task of a worker
Job = tuple[str, str, list[int]]  # image id, split, seeds


def build_world(
    world: World, out: str | Path, work: str | Path, sizes: dict[str, int], seed: int, workers: int = 1
) -> None:
    """Write `out`/images/*.png, scenes.jsonl, one <layer>.jsonl per text layer, and the world's extra rows.

    Finished scenes are kept in `work`, from which an interrupted run resumes. Scene i of a split depends only
    on `seed`, the split and i, so a larger split starts with the scenes of a smaller one.
    Raises ConfigError for an unknown split, a negative size, or if there are no scenes.
    """
    _check(sizes, workers)
    out, work = Path(out), Path(work)
    jobs = _jobs(sizes, seed)
    _claim(work, {"world": world.describe_self(), "seed": seed, "code": _code_hash()})
    folder = work / "corpus"
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (work / "rows").mkdir(exist_ok=True)
    waiting = [job for job in jobs if not (work / "rows" / f"{job[0]}.json").exists()]
    with _executor(world, work, min(workers, max(1, len(waiting) // CHUNK))) as run:
        for _ in progress(run(waiting), "render", total=len(waiting)):
            pass
    _write_tables(folder, [_row(work, job[0]) for job in jobs])
    _drop_others(folder / "images", {f"{job[0]}.png" for job in jobs})
    _put_in_place(folder, out)
    shutil.rmtree(work)


def _check(sizes: dict[str, int], workers: int) -> None:
    for split, size in sizes.items():
        if split not in SPLITS:
            raise ConfigError(f"sizes: '{split}' is not a split{did_you_mean(split, SPLITS)}")
        if not isinstance(size, int) or size < 0:
            raise ConfigError(f"sizes: {split}: {size!r} is not a number of scenes; use 0 or more")
    if sum(sizes.values()) == 0:
        raise ConfigError("sizes: no scenes to render; set at least one split above 0")
    if workers < 1:
        raise ConfigError(f"workers: {workers} is less than 1; set the number of processes")


def _jobs(sizes: dict[str, int], seed: int) -> list[Job]:
    return [
        (f"{split}_{index:05d}", split, [seed, SPLITS.index(split), index])
        for split in SPLITS
        for index in range(sizes.get(split, 0))
    ]


def _code_hash() -> str:
    """Identifies unfinished work, so that results of other code are not mixed in."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent
    for file in sorted(folder.rglob("*.py")):
        digest.update(f"{file.relative_to(folder).as_posix()}:{sha256(file)};".encode())
    return digest.hexdigest()[:16]


def _claim(work: Path, stamp: dict[str, Any]) -> None:
    """Empty `work` unless it holds unfinished work with the same settings and code."""
    file = work / "stamp.json"
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else None
    if known != json.loads(json.dumps(stamp)):
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True, exist_ok=True)
        write_json(file, stamp)


def _row(work: Path, image_id: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads((work / "rows" / f"{image_id}.json").read_text(encoding="utf-8"))
    return row


def _write_tables(folder: Path, rows: list[dict[str, Any]]) -> None:
    write_jsonl(folder / "scenes.jsonl", (row["scene"] for row in rows))
    for layer in sorted({name for row in rows for name in row["layers"]}):
        write_jsonl(folder / f"{layer}.jsonl", (e for row in rows for e in row["layers"].get(layer, [])))
    for stem in sorted({name for row in rows for name in row["extra"]}):
        write_jsonl(folder / f"{stem}.jsonl", (row["extra"][stem] for row in rows if stem in row["extra"]))


def _drop_others(folder: Path, wanted: set[str]) -> None:
    """Remove temporary files of killed workers, and scenes beyond the requested size."""
    for file in folder.iterdir():
        if file.name not in wanted:
            file.unlink()


def _put_in_place(folder: Path, out: Path) -> None:
    """Rename `folder` to `out`; an older `out` is removed only after the new one exists."""
    out.parent.mkdir(parents=True, exist_ok=True)
    fresh, old = out.with_name(f".{out.name}.new"), out.with_name(f".{out.name}.old")
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        os.rename(folder, fresh)
    except OSError:  # on another file system
        shutil.copytree(folder, fresh)
    if out.exists():
        os.rename(out, old)
    os.rename(fresh, out)
    shutil.rmtree(old, ignore_errors=True)


def finish_scene(world: World, work: Path, job: Job) -> str:
    """Create and store one scene: first the image, then its row, which marks it as finished."""
    from PIL import Image

    image_id, split, seeds = job
    made: Made = world.make(image_id, split, seeds)
    with atomic_path(work / "corpus" / "images" / f"{image_id}.png") as file:
        Image.fromarray(made.rgb).save(file, format="PNG", optimize=False, compress_level=6)
    row = {
        "scene": dataclasses.asdict(made.scene),
        "layers": {name: [dataclasses.asdict(e) for e in examples] for name, examples in made.layers.items()},
        "extra": made.extra,
    }
    write_json(work / "rows" / f"{image_id}.json", row)
    return image_id


# The arguments of a worker process; the world keeps its window between scenes.
_mine: dict[str, Any] = {}


def _start_worker(world: World, work: Path, parent: int) -> None:
    os.environ.setdefault("LP_NUM_THREADS", "1")  # software renderer: parallelism comes from the processes
    _mine.update(world=world, work=work)

    def leave_with_parent() -> None:  # a killed parent cannot tell its workers to stop
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=leave_with_parent, daemon=True).start()


def _work(job: Job) -> str:
    return finish_scene(_mine["world"], _mine["work"], job)


@contextmanager
def _executor(world: World, work: Path, workers: int) -> Iterator[Any]:
    """Yield a function from jobs to an iterator over finished image ids."""
    if workers == 1:
        yield lambda jobs: (finish_scene(world, work, job) for job in jobs)
        return
    pool = ProcessPoolExecutor(
        workers, multiprocessing.get_context("spawn"), _start_worker, (world, work, os.getpid())
    )
    try:
        yield lambda jobs: pool.map(_work, jobs, chunksize=CHUNK)
    finally:
        pool.shutdown(cancel_futures=True)
