"""Study 5 for any vision-language model of transformers, whose processor makes the inputs, as in `look`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.capture import roles_of
from attention_atlas.capture.boxes import token_boxes
from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.inputs import extended, prompt_inputs, text_ids, tokenizer_of
from attention_atlas.look.keys import cross_modules
from attention_atlas.look.load import load
from attention_atlas.models.vlm.samples import Sample


class ProcessorInputs:
    """Makes the input tensors of `model` from one sample with the model's own `processor`.

    The prompt is filled into the processor's chat template (look/inputs.py); the text follows its end. One
    sample at a time: families differ in how they pad and mask images of several sizes, and a single sequence
    needs no padding.
    """

    alone = True

    def __init__(self, model: Any, processor: Any) -> None:
        if found := cross_modules(model):
            raise AtlasError(
                f"{type(model).__name__}: reads images by cross-attention ({found[0][1]}); this needs a "
                "model whose images are tokens of the sequence (`attention-atlas look` takes this one)"
            )
        self.model, self.processor, self.tokenizer = model, processor, tokenizer_of(processor)
        pad = self.tokenizer.pad_token_id
        self.pad = pad if pad is not None else self.tokenizer.eos_token_id
        self._start: dict[tuple[str, str], int] = {}  # {(image, prompt): length of the prompt}
        self._last: dict[str, int] = {}  # {prompt: its last token, which the image does not change}

    def __getstate__(self) -> dict[str, Any]:
        """For a process that only prepares inputs: without the model's weights."""
        return self.__dict__ | {"model": _Described(self.model)}

    def batch(
        self,
        samples: Sequence[Sample],
        end: bool = False,
        left: bool = False,
        images: Sequence[Any] | None = None,
    ) -> dict[str, Any]:
        """What the processor returns, with `text` appended. images: images to show instead of the samples'
        own (paths or PIL). Raises AtlasError unless there is one sample."""
        if len(samples) != 1:
            raise ConfigError(f"batch: {len(samples)} samples; a model with its own processor takes one")
        (sample,), image = samples, samples[0].image if images is None else images[0]
        inputs = self._prompt(image, sample.prompt)
        ids = self._text_ids(sample, end)
        return extended(inputs, ids) if ids else inputs

    def spans(
        self, samples: Sequence[Sample], end: bool = False, images: Sequence[Any] | None = None
    ) -> list[tuple[int, int]]:
        """[start, stop) of each sample's text; the start depends on the size of the image."""
        out = []
        for n, sample in enumerate(samples):
            image = sample.image if images is None else images[n]
            start = self._start.get((str(image), sample.prompt))
            if start is None:
                start = self._prompt(image, sample.prompt)["input_ids"].shape[1]
            out.append((start, start + len(self._text_ids(sample, end))))
        return out

    def _prompt(self, image: Any, prompt: str) -> dict[str, Any]:
        inputs = prompt_inputs(self.model, self.processor, [_opened(image)], prompt)
        if isinstance(image, str | Path):
            self._start[str(image), prompt] = inputs["input_ids"].shape[1]
        self._last[prompt] = int(inputs["input_ids"][0, -1])
        return inputs

    def roles(self, inputs: dict[str, Any]) -> list[list[str]]:
        """'image', 'bos', 'pad', or 'text' for everything else: template tokens belong to the prompt."""
        return [
            [role if role in ("image", "bos", "pad") else "text" for role in row]
            for row in roles_of(inputs, self.model.config)
        ]

    def grid(self, config: Any) -> tuple[int, int] | None:
        """None: `places` says where the positions are."""
        return None

    def places(self, sample: Sample) -> list[list[float] | None] | None:
        """For each position of the image its box (left, top, right, bottom) as shares of the image's
        width and height, None for one without a place; None for a family whose geometry is not known."""
        image = _opened(sample.image)
        inputs = prompt_inputs(self.model, self.processor, [image], sample.prompt)
        images = getattr(self.processor, "image_processor", None)
        try:
            boxes_S4, _ = token_boxes(self.model.config, inputs, [image.size[::-1]], images)
        except AtlasError:
            return None
        (roles,) = self.roles(inputs)
        width, height = image.size
        share_N4 = boxes_S4[np.array(roles) == "image"] / torch.tensor([width, height, width, height])
        found = [None if box.isnan().any() else np.round(box.tolist(), 5).tolist() for box in share_N4]
        return found if any(box is not None for box in found) else None

    def _text_ids(self, sample: Sample, end: bool) -> list[int]:
        """Call `_prompt` first."""
        ids: list[int] = []
        if sample.text:
            before = [self._last[sample.prompt]]
            try:
                ids = text_ids(self.model.config, self.tokenizer, sample.text, before)
            except ConfigError as error:
                raise AtlasError(f"{sample.id}: {error}") from None
        return ids + ([self.tokenizer.eos_token_id] if end else [])


class _Described:
    """The parts of a model that `prompt_inputs` reads."""

    def __init__(self, model: Any) -> None:
        self.config, self.dtype, self.forward = model.config, model.dtype, type(model).forward

    def get_input_embeddings(self) -> torch.nn.Module:
        return torch.nn.Embedding(1, 1)


def load_any(
    path: str | None, precision: str = "auto", device_map: str | None = "auto", device: str = "cpu"
) -> tuple[Any, ProcessorInputs, dict[str, Any]]:
    """(model in evaluation mode, its inputs, {}), as models.load.load_model expects it.

    path: hub id, or a folder that save_pretrained wrote. precision, device_map: see models/vlm/hub.py. Raises
    a one-line AtlasError for a model that cannot be used."""
    if not path:
        raise ConfigError("model.path: is empty; give a hub id or a folder, model.path=ID")
    spread = device.startswith("cuda") and device_map
    model, processor = load(path, "auto" if spread else device, precision)
    return model, ProcessorInputs(model, processor), {}


def _opened(image: Any) -> Any:
    from PIL.Image import Image

    return image.convert("RGB") if isinstance(image, Image) else read_rgb(image)
