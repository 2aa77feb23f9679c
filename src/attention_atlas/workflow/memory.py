"""Memory management of a stage's process. Call both functions before torch is imported."""

from __future__ import annotations

import ctypes
import gc
import os

# mallopt's parameters (malloc.h), and the environment variables that set them in child processes.
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
# Blocks of 256 MiB and more are mapped individually: for them zeroing is a small part of the work.
VALUES = {TRIM_THRESHOLD: 2**31 - 1, MMAP_THRESHOLD: 1 << 28}
VARIABLES = {TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_", MMAP_THRESHOLD: "MALLOC_MMAP_THRESHOLD_"}
# makes torch ask the system for huge pages; read when torch is loaded.
HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"
# Number of new containers before Python collects the youngest generation (700 by default).
YOUNG = 50_000


def keep_freed_memory() -> bool:
    """Keep freed memory in this process and its children; the user's environment variables take precedence.
    False if the C library is not glibc.

    glibc returns large freed blocks to the system at once and requests them again, zeroed page by page, a
    moment later. A training step frees and allocates hundreds of megabytes: with this, a step of a mini model
    takes about 0.9 of the time (docs/benchmarks.md). In return, a process never shrinks.
    """
    os.environ.setdefault(HUGE_PAGES, "1")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is None:
        return False
    chosen = {p: value for p, value in VALUES.items() if VARIABLES[p] not in os.environ}
    os.environ.update({VARIABLES[p]: str(value) for p, value in chosen.items()})
    return all(mallopt(p, value) == 1 for p, value in chosen.items())


def collect_seldom() -> None:
    """Collect cycles less often: imports and corpora create hundreds of thousands of objects that all stay,
    and scanning them took half of the time needed to read a corpus."""
    gc.set_threshold(YOUNG, 20, 100)
