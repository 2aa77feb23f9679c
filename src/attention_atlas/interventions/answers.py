"""An image, a prompt and an answer, and the answer's log-probability, teacher-forced.

Axes: N token of the answer, S position of the sequence.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attention_atlas.data.images import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.inputs import (
    Sequenced,
    image_token,
    prompt_inputs,
    sequence,
    tokenizer_of,
    with_answer,
)
from attention_atlas.look.words import Word, words_of


@dataclass
class Answered:
    """images: PIL, upright, RGB. whole: inputs of the model for prompt and answer. words: of the answer."""

    images: list[Any]
    prompt: str
    whole: Sequenced
    words: list[Word]

    @property
    def new(self) -> list[int]:
        """The answer's token ids: those that the model wrote, or the tokenizer's of a given answer."""
        return self.whole.ids[self.whole.start :]

    @property
    def rows(self) -> list[int]:
        """The positions that predict the answer: each one before its token."""
        return list(range(self.whole.start - 1, len(self.whole.ids) - 1))


def answered(
    model: Any,
    processor: Any,
    image: Any,
    prompt: str,
    answer: str | None = None,
    max_new_tokens: int = 40,
) -> Answered:
    """image: a path or PIL image, or a list of them. answer: None lets the model write it, greedily.

    Raises AtlasError for an image that cannot be read and an answer without a word.
    """
    images = opened(image)
    inputs = prompt_inputs(model, processor, images, prompt)
    whole = sequence(model, processor, inputs, answer, max_new_tokens)
    plain = prompt.replace(image_token(processor), " ")
    found = words_of(tokenizer_of(processor), whole.ids, whole.roles, whole.start, plain)
    words = [word for word in found if word.part == "answer"]
    if not words:
        raise AtlasError(f"answer: '{whole.answer}' has no word; give --answer")
    return Answered(images, prompt, whole, words)


def same_answer(model: Any, processor: Any, first: Answered, images: list[Any]) -> Sequenced:
    """The same prompt and the same tokens of the answer, with other images."""
    inputs = prompt_inputs(model, processor, images, first.prompt)
    return with_answer(model, processor, inputs, first.new, first.whole.answer)


def opened(image: Any) -> list[Any]:
    """PIL images in RGB. image: a path or PIL image, or a list of them."""
    from PIL.Image import Image

    images = list(image) if isinstance(image, list | tuple) else [image]
    if not images:
        raise ConfigError("--image: no image; give at least one")
    return [x.convert("RGB") if isinstance(x, Image) else read_rgb(x) for x in images]


def answer_log_probs(model: Any, whole: Sequenced) -> Tensor:
    """(N,) log-probability of each token of the answer, in nats, in one pass; with gradients if enabled."""
    count = len(whole.ids) - whole.start
    inputs = dict(whole.inputs) | {"use_cache": False}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        inputs["logits_to_keep"] = count + 1
    logits_NV = model(**inputs).logits[0, -count - 1 : -1].float()
    ids_N1 = torch.tensor(whole.ids[whole.start :], device=logits_NV.device)[:, None]
    return logits_NV.log_softmax(-1).gather(-1, ids_N1)[:, 0]
