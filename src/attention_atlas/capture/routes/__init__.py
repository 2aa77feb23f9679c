"""Routes from models that do not call the seam to the active capture."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import nn

from attention_atlas.capture.routes.hooks import hook_modules
from attention_atlas.capture.routes.interface import through_interface
from attention_atlas.capture.seam import Recorder, lock_of, recording


@contextlib.contextmanager
def captured_by(recorder: Recorder, model: nn.Module) -> Iterator[None]:
    """Send the attention of every known module of `model` to `recorder`, in this thread only; undone on exit.

    Captures of the same model wait for each other.
    """
    with (
        lock_of(model),
        _uncompiled(),
        through_interface(),
        hook_modules(model, recorder),
        recording(recorder),
    ):
        yield


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    """Run the model uncompiled: code that torch.compile traced without the capture would bypass it."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
