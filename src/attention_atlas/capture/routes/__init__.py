"""Ways from a model that does not call the seam itself to the active capture."""

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
    """Lead the attention of every known module of `model` to `recorder`, in this thread only; undone on exit.

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
    """Code that torch.compile made without the capture would pass it by: run the model's own code."""
    if "torch._dynamo" not in sys.modules:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield
