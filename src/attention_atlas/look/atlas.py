"""`Atlas(model, processor).look(image, prompt)`: generate, run once through the capture, collect."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.capture import Captured
from attention_atlas.capture.summaries import sink_keys
from attention_atlas.data.images import read_rgb
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.attend import WordCapture
from attention_atlas.look.inputs import Sequenced, image_token, prompt_inputs, sequence, tokenizer_of
from attention_atlas.look.keys import NO_ROLLOUT, Keys, captured_words, kept_layers, keys_of
from attention_atlas.look.result import Look, NamedImage
from attention_atlas.look.things import things_of
from attention_atlas.look.words import Word, words_of

BUDGET = 64_000_000  # bytes of maps in a page, before compression
MAX_NEW_TOKENS = 40
# Half-precision logits of one pass and of generation differ by rounding.
TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.5, torch.bfloat16: 1.0}


class Atlas:
    """model: a transformers model for images and text (AutoModelForImageTextToText). processor: its own."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model.eval(), processor

    def look(
        self,
        image: Any,
        prompt: str,
        answer: str | None = None,
        max_new_tokens: int = MAX_NEW_TOKENS,
        layers: Sequence[int] | None = None,
        budget: int = BUDGET,
        boxes: Sequence[Example] = (),
    ) -> Look:
        """What each word of `prompt` and of the answer attends to.

        image: a path or PIL image, or a list of them. answer: a text to look at; by default the model
        writes one, greedily, at most `max_new_tokens` long. layers: those whose maps are kept, from 0; by
        default all, or as many, evenly spaced, as `budget` bytes hold. Masses and entropies are those of all
        layers. boxes: of things in these images, drawn and measured.

        Raises AtlasError if the prompt has no position of an image, ConfigError for a wrong argument.
        """
        given = list(image) if isinstance(image, list | tuple) else [image]
        if not given:
            raise ConfigError("--image: no image; give at least one")
        images = [opened(n, x) for n, x in enumerate(given)]
        things = things_of(given, images, boxes)
        inputs = prompt_inputs(self.model, self.processor, [p.pixels for p in images], prompt)
        whole = sequence(self.model, self.processor, inputs, answer, max_new_tokens)
        sizes = [p.pixels.size[::-1] for p in images]
        keys = keys_of(self.model, self.processor, whole.inputs, whole.roles, sizes)
        notes = keys.notes + ([NO_ROLLOUT] if keys.cross else [])
        notes += [_no_places(keys.reason)] if keys.reason else []
        plain = prompt.replace(image_token(self.processor), " ")
        words = words_of(tokenizer_of(self.processor), whole.ids, whole.roles, whole.start, plain)
        if not any(word.part == "answer" for word in words):
            raise AtlasError(f"answer: '{whole.answer}' has no word; give --answer")
        per_head = len(words) * len(keys.image_T)
        kept = kept_layers(self.model.config.get_text_config(), keys, layers, per_head, budget)
        capture, captured, more = self._pass(whole, words, keys, kept)
        (kind,) = captured.values()
        found = [layer for layer in kind.layers if layer in kept]
        received_LHK = np.stack([capture.received[layer].numpy() for layer in kind.layers])
        real_N = np.flatnonzero(np.array(keys.roles) != "pad")
        tokens = _pieces(tokenizer_of(self.processor), whole.ids)
        return Look(
            model=self.model.config.name_or_path or type(self.model).__name__,
            prompt=prompt,
            answer=whole.answer,
            generated=answer is None,
            images=images,
            tokens=tokens,
            roles=whole.roles,
            cross=keys.cross,
            key_tokens=keys.names or tokens,
            key_roles=keys.roles,
            words=words,
            layers=list(kind.layers),
            kept=found,
            groups=list(kind.groups),
            values={name: value[0].float().numpy() for name, value in kind.values.items()},
            word_values={
                name: np.stack([by_layer[layer].numpy() for layer in found])
                for name, by_layer in capture.word_values.items()
                if by_layer
            },
            received_LHS=received_LHK,
            visible=[capture.visible[layer] for layer in kind.layers],
            query_R=capture.query_R,
            sinks=real_N[sink_keys(received_LHK[..., real_N])].tolist(),
            boxes_S4=keys.boxes_K4,
            image_S=keys.image_K,
            notes=notes + more,
            things=things,
        )

    def _pass(
        self, whole: Sequenced, words: list[Word], keys: Keys, kept: list[int]
    ) -> tuple[WordCapture, Captured, list[str]]:
        inputs = dict(whole.inputs)
        answered = len(whole.ids) - whole.start
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            inputs["logits_to_keep"] = answered + 1
        inputs["use_cache"] = False
        queries = len(whole.ids)
        capture, captured, notes = captured_words(self.model, keys, queries, words, kept, inputs)
        is_pad_K = np.array(keys.roles) == "pad"
        if any(seen_RK[:, is_pad_K].any() for seen_RK in capture.visible.values()):
            notes.append(
                "words before the image attend to all keys, also to tiles that are not there: the model "
                "masks nothing for them"
            )
        if whole.logits_NV is not None:
            again_NV = captured.output.logits[0, -answered - 1 : -1].float().cpu()
            off = float((again_NV.log_softmax(-1) - whole.logits_NV.log_softmax(-1)).abs().max())
            if not off <= TOLERANCE.get(self.model.dtype, 1.0):
                notes.append(
                    f"one pass over the answer differs from its generation by up to {off:.2g} nats: the page "
                    "shows a pass that the model did not make; please report the model"
                )
        captured.output = None
        return capture, captured, notes


def _no_places(reason: str) -> str:
    return f"the page shows the image tokens' share of the attention, not their places: {reason}"


def opened(number: int, given: Any) -> NamedImage:
    from PIL.Image import Image

    if isinstance(given, Image):
        return NamedImage(f"image {number + 1}", given.convert("RGB"))
    return NamedImage(Path(given).name, read_rgb(given))


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
