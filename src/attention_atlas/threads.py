"""The number of threads that torch uses for one operation."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def cpu_threads(count: int) -> Iterator[None]:
    """Set `count` threads (0: leave unchanged). For the mini models one is faster than two, which spend more
    time on synchronisation than on the operation."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
