"""The progress bar of all long loops; silent when the output is piped."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    from tqdm import tqdm

    yield from tqdm(items, desc=what, total=total, disable=not sys.stderr.isatty(), leave=False)
