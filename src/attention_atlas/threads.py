"""How many threads torch takes for one operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """`count` threads (0: as they are). At the size of the mini models one is faster than two, which wait
    for each other longer than an operation takes."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
