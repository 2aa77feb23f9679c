"""How a stage's process deals with memory it no longer needs. Call both before torch is imported."""

from __future__ import annotations

import ctypes
import gc
import os

# mallopt's parameters (malloc.h), and the variables by which processes started from here get the same.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
# Blocks from 256 MiB on are mapped one by one: for them zeroing is a small part of what is done with them.
VALUES = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 1 << 28}
VARIABLES = {TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_", MMAP_THRESHOLD: "MALLOC_MMAP_THRESHOLD_"}
# torch asks the system for huge pages under what it allocates; read when torch is loaded.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# New containers until Python looks for cycles among the youngest (700 by default).
YOUNG = 50_000


def keep_freed_memory() -> bool:
    """Memory that is freed stays with this process, and with those it starts; what the user's environment
    says stays too. False where the C library is not glibc, which has the calls.

    glibc gives large freed blocks back to the system at once and gets them again, zeroed page by page, a
    moment later. A training step frees and takes hundreds of megabytes: with this, a step of a mini
    model takes about 0.9 of the time (docs/benchmarks.md). The price is that a process never shrinks.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    chosen = {p: value for p, value in VALUES.items() if VARIABLES[p] not in os.environ}
    os.environ.update({VARIABLES[p]: str(value) for p, value in chosen.items()})
    return all(mallopt(p, value) == 1 for p, value in chosen.items())


def collect_seldom() -> None:
    """Look for cycles less often: imports and corpora make hundreds of thousands of objects that all stay,
    and half of the time to read a corpus was spent looking through them."""
    gc.set_threshold(YOUNG, 20, 100)
