"""`diagnose(model, processor)`: do an installation's attention implementations and the capture agree?

The same input runs through sdpa, flash attention, eager and the back ends of the capture; the capture also
checks, in every module, that an implementation computes softmax(scale · q·k + mask) · v of its own inputs.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from attention_atlas.capture.agreement import HALF
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.atlas import opened
from attention_atlas.look.attend import decoder_layers
from attention_atlas.look.doctor_maps import CallMaps, MapCapture
from attention_atlas.look.doctor_result import Captured, Diagnosis
from attention_atlas.look.doctor_verdict import Run, judged
from attention_atlas.look.inputs import Sequenced, prompt_inputs, sequence
from attention_atlas.look.keys import checked_layers, cross_layers
from attention_atlas.look.result import NamedImage

PROMPT = "What is in the picture?"
MAX_NEW_TOKENS = 20
LOGITS = 2**26  # numbers; of longer texts, only the last positions are compared


def diagnose(
    model: Any,
    processor: Any,
    image: Any = None,
    prompt: str = PROMPT,
    answer: str | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    layers: Sequence[int] | None = None,
) -> Diagnosis:
    """Run one input through every attention implementation and compare logits, answers and maps.

    model, processor: as in `Atlas`. image: a path or PIL image, or a list of them; None: a made-up image.
    answer: a text to compare on; by default each implementation writes its own, greedily, and the logits and
    maps are those of one pass over the reference's. layers: of the language model, whose maps are compared;
    by default all attention modules, also those of the vision tower.

    The reference is sdpa; eager, if the model cannot run sdpa or sdpa computes something other than
    softmax(scale · q·k + mask) · v. The model's implementation is set back at the end.

    Raises ConfigError for a wrong argument, AtlasError if neither runs or the model is an encoder-decoder.
    """
    decoder_layers(model)  # raises for an encoder-decoder
    given = [None] if image is None else list(image) if isinstance(image, list | tuple) else [image]
    if not given:
        raise ConfigError("--image: no image; give at least one, or leave it out for a made-up one")
    images = [made_up_image() if x is None else opened(n, x) for n, x in enumerate(given)]
    model.eval()
    inputs = prompt_inputs(model, processor, [p.pixels for p in images], prompt)
    patient = _Patient(model, processor, inputs, answer, max_new_tokens, _globs(model, layers))
    with _restored(model) as as_loaded:
        patient.as_loaded = as_loaded
        return patient.examined(images, prompt)


def made_up_image() -> NamedImage:
    """A red square and a blue disc on a gradient; always the same pixels."""
    import numpy as np
    from PIL import Image

    y, x = np.mgrid[:240, :320]
    pixels = np.stack([x * 255 // 319, y * 255 // 239, np.full_like(x, 160)], -1).astype(np.uint8)
    pixels[60:160, 40:140] = (220, 30, 30)
    pixels[(x - 230) ** 2 + (y - 140) ** 2 < 60**2] = (30, 60, 220)
    return NamedImage("a made-up image", Image.fromarray(pixels))


@dataclass
class _Patient:
    model: Any
    processor: Any
    inputs: dict[str, Any]
    answer: str | None
    longest: int
    globs: list[str]
    as_loaded: list[tuple[Any, Any]] = field(default_factory=list)

    def examined(self, images: list[NamedImage], prompt: str) -> Diagnosis:
        runs = {name: Run(name) for name in ("sdpa", "flash_attention_2", "eager")}
        reference = self._reference(runs["sdpa"], runs["eager"])
        assert reference.text is not None
        common = reference.text
        for run in runs.values():
            if run is not reference and not run.reason:
                self._tried(run, functools.partial(self._plain, run, common))
        captures: list[MapCapture] = []
        back_ends = ["fused", "materialised"]
        if next(self.model.parameters()).is_cuda:
            back_ends.insert(0, "one_pass")
        for back_end in back_ends:
            run = runs[f"capture: {back_end}"] = Run(f"capture: {back_end}")
            capture = MapCapture(self.model, self.globs, back_end)
            self._tried(run, functools.partial(self._captured, run, common, capture), reference.name)
            if not run.reason:
                captures.append(capture)
        return Diagnosis(
            model=self.model.config.name_or_path or type(self.model).__name__,
            dtype=str(self.model.dtype).removeprefix("torch."),
            device=str(next(self.model.parameters()).device),
            images=tuple(f"{p.name} ({p.pixels.width} × {p.pixels.height})" for p in images),
            prompt=prompt,
            answer=common.answer,
            tokens=len(common.ids),
            reference=reference.name,
            implementations=tuple(judged(run, reference, self.model.dtype) for run in runs.values()),
            captured=_captured_kinds(runs, captures),
            outside=tuple(captures[0].outside) if captures else (),
            rows=min((c.rows_BHRK.shape[2] / c.queries for c in reference.calls), default=1.0),
        )

    # Passes ------------------------------------------------------------------------------------------

    def _reference(self, *runs: Run) -> Run:
        """The first that runs and computes softmax(scale · q·k + mask) · v in every module, or else the first
        that runs."""
        for run in runs:
            self._tried(run, functools.partial(self._plain, run, None))
            if not run.reason and not run.faulty:
                return run
        for run in runs:
            if not run.reason:
                return run
        name = type(self.model).__name__
        raise AtlasError(f"{name}: neither sdpa nor eager attention runs: {runs[0].reason}")

    def _tried(self, run: Run, function: Callable[[], None], implementation: str = "") -> None:
        try:
            self._switch(implementation or run.name)
            function()
        except ConfigError:
            raise
        except Exception as error:  # whatever keeps an implementation from running is a finding
            run.reason = " ".join(str(error).split())[:300] or type(error).__name__

    def _plain(self, run: Run, common: Sequenced | None) -> None:
        """Without common text, the maps are those of the pass over its own answer."""
        run.text = run.text or sequence(self.model, self.processor, self.inputs, self.answer, self.longest)
        common = common or run.text
        run.logits_NV = self._logits(common)
        if run.name in ("sdpa", "eager"):
            capture = MapCapture(self.model, self.globs, check=False)
            with capture:
                self._logits(common)
            run.calls = capture.calls

    def _captured(self, run: Run, common: Sequenced, capture: MapCapture) -> None:
        with capture:
            run.logits_NV = self._logits(common)
        run.calls = capture.calls
        with capture:
            run.text = sequence(self.model, self.processor, self.inputs, self.answer, self.longest)

    @torch.no_grad()
    def _logits(self, text: Sequenced) -> Tensor:
        """(N,V) of the last N positions of one pass over the whole text."""
        inputs = dict(text.inputs, use_cache=False)
        vocabulary = self.model.config.get_text_config().vocab_size
        count = max(1, min(len(text.ids), LOGITS // vocabulary))
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            inputs["logits_to_keep"] = count
        logits_NV: Tensor = self.model(**inputs).logits[0, -count:].float().cpu()
        return logits_NV

    def _switch(self, name: str) -> None:
        """Make the model use an implementation. Raises AtlasError or ValueError where it cannot."""
        if name == "flash_attention_2":
            self._check_flash()
        _restore(self.as_loaded)
        # The model may have been loaded with sdpa only in the parts that support it.
        if self.model.config._attn_implementation != name:
            self.model.set_attn_implementation(name)
        if self.model.config._attn_implementation != name:
            raise AtlasError(f"{type(self.model).__name__} cannot switch its attention to {name}")

    def _check_flash(self) -> None:
        from transformers.utils import is_flash_attn_2_available

        if not next(self.model.parameters()).is_cuda:
            raise AtlasError("needs a CUDA GPU")
        if not is_flash_attn_2_available():
            raise AtlasError("the package flash-attn is not installed")
        if self.model.dtype not in HALF:
            raise AtlasError("needs half precision; run with --dtype bfloat16")


def _captured_kinds(runs: dict[str, Run], captures: list[MapCapture]) -> tuple[Captured, ...]:
    run = next((r for n, r in runs.items() if n.startswith("capture") and not r.reason), None)
    found: dict[str, list[CallMaps]] = {}
    for call in run.calls if run else ():
        found.setdefault(call.kind, []).append(call)
    return tuple(
        Captured(
            kind=kind,
            part=calls[0].part,
            modules=len({call.module for call in calls}),
            class_name=calls[0].class_name,
            route=calls[0].route,
            back_ends=tuple(dict.fromkeys(reason for c in captures for reason in c.reasons(kind))),
        )
        for kind, calls in found.items()
    )


def _globs(model: Any, layers: Sequence[int] | None) -> list[str]:
    if layers is None:
        return ["*"]
    depth = int(model.config.get_text_config().num_hidden_layers)
    chosen = checked_layers(layers, range(depth))
    cross = [f"cross.{layer}" for layer in chosen if layer in cross_layers(model)]
    return [f"decoder.{layer}" for layer in chosen] + cross


@contextlib.contextmanager
def _restored(model: Any) -> Iterator[list[tuple[Any, Any]]]:
    """Yields the implementation of each part of the model; set back on exit."""
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    configs[id(model.config)] = model.config
    for config in list(configs.values()):
        nested = (getattr(config, name, None) for name in getattr(config, "sub_configs", ()))
        configs |= {id(c): c for c in nested if c is not None}
    saved = [(c, c._attn_implementation_internal) for c in configs.values()]
    try:
        yield saved
    finally:
        _restore(saved)


def _restore(saved: list[tuple[Any, Any]]) -> None:
    for config, implementation in saved:
        config._attn_implementation_internal = implementation
