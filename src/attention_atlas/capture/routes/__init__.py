"""Ways from a model that does not call the seam itself to the active capture."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

from attention_atlas.capture.routes.hooks import hook_modules
from attention_atlas.capture.routes.interface import through_interface


@contextlib.contextmanager
def open_routes(model: nn.Module) -> Iterator[None]:
    """Lead the attention of every known module of `model` through the seam; undone on exit."""
    with through_interface(model), hook_modules(model):
        yield
