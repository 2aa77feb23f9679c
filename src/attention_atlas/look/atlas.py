"""`Atlas(model, processor).look(image, prompt)`: generate, run once through the capture, collect."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from attention_atlas.capture import Captured, role_groups
from attention_atlas.capture.boxes import token_boxes
from attention_atlas.capture.summaries import sink_keys
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.data.pictures import read_rgb
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.attend import WordCapture, captured_words, decoder_layers
from attention_atlas.look.inputs import Sequenced, picture_token, prompt_inputs, sequence, tokenizer_of
from attention_atlas.look.result import Look, Picture
from attention_atlas.look.things import things_of
from attention_atlas.look.words import Word, words_of

BUDGET = 64_000_000  # bytes of maps in a page, before compression
MAX_NEW_TOKENS = 40
# Half-precision logits of one pass and of generation differ by rounding.
TOLERANCE = {torch.float32: 1e-2, torch.float16: 0.5, torch.bfloat16: 1.0}


class Atlas:
    """model: a transformers model for pictures and text (AutoModelForImageTextToText). processor: its own."""

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

        image: a path or PIL picture, or a list of them. answer: a text to look at; by default the model
        writes one, greedily, at most `max_new_tokens` long. layers: those whose maps are kept, from 0; by
        default all, or as many, evenly spaced, as `budget` bytes hold. Masses and entropies are those of all
        layers. boxes: of things in these pictures, drawn and measured.

        Raises AtlasError if no position of the prompt is a picture's, ConfigError for a wrong argument.
        """
        images = list(image) if isinstance(image, list | tuple) else [image]
        if not images:
            raise ConfigError("--image: no picture; give at least one")
        pictures = [opened(n, given) for n, given in enumerate(images)]
        things = things_of(images, pictures, boxes)
        inputs = prompt_inputs(self.model, self.processor, [p.pixels for p in pictures], prompt)
        whole = sequence(self.model, self.processor, inputs, answer, max_new_tokens)
        is_image_S = np.array([role == "image" for role in whole.roles])
        boxes_S4, picture_S, notes = self._places(whole, pictures, is_image_S)
        plain = prompt.replace(picture_token(self.processor), " ")
        words = words_of(tokenizer_of(self.processor), whole.ids, whole.roles, whole.start, plain)
        if not any(word.part == "answer" for word in words):
            raise AtlasError(f"answer: '{whole.answer}' has no word; give --answer")
        per_head = len(words) * int(is_image_S.sum())
        kept = kept_layers(self.model.config.get_text_config(), layers, per_head, budget)
        capture, captured, more = self._pass(whole, words, is_image_S, kept)
        (kind,) = captured.values()
        found = [layer for layer in kind.layers if layer in kept]
        received_LHS = np.stack([capture.received[layer].numpy() for layer in kind.layers])
        return Look(
            model=self.model.config.name_or_path or type(self.model).__name__,
            prompt=prompt,
            answer=whole.answer,
            generated=answer is None,
            pictures=pictures,
            tokens=_pieces(tokenizer_of(self.processor), whole.ids),
            roles=whole.roles,
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
            received_LHS=received_LHS,
            visible=[capture.visible[layer] for layer in kind.layers],
            query_R=capture.query_R,
            sinks=sink_keys(received_LHS).tolist(),
            boxes_S4=boxes_S4,
            picture_S=picture_S,
            notes=notes + more,
            things=things,
        )

    def _places(
        self, whole: Sequenced, pictures: list[Picture], is_image_S: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[str]]:
        """(boxes_S4, picture_S, notes); without boxes for a family whose geometry is not known."""
        sizes = [p.pixels.size[::-1] for p in pictures]
        images = getattr(self.processor, "image_processor", None)
        try:
            boxes, picture = token_boxes(self.model.config, whole.inputs, sizes, images)
        except AtlasError as error:
            # A single picture has all picture tokens, wherever they lie.
            picture_S = np.where(is_image_S & (len(pictures) == 1), 0, -1)
            return np.full((len(is_image_S), 4), np.nan), picture_S, [_no_places(str(error))]
        boxes_S4 = boxes.numpy()
        known = np.isfinite(boxes_S4[is_image_S]).any()
        return boxes_S4, picture.numpy(), [] if known else [_no_places("its tokens have no place")]

    def _pass(
        self, whole: Sequenced, words: list[Word], is_image_S: np.ndarray, kept: list[int]
    ) -> tuple[WordCapture, Captured, list[str]]:
        groups, picture_T = role_groups([whole.roles]), np.flatnonzero(is_image_S).tolist()
        layers, inputs = decoder_layers(self.model), dict(whole.inputs)
        answered = len(whole.ids) - whole.start
        if "logits_to_keep" in inspect.signature(self.model.forward).parameters:
            inputs["logits_to_keep"] = answered + 1
        inputs["use_cache"] = False
        options = words, groups, picture_T, kept
        capture, captured, notes = captured_words(self.model, layers, *options, inputs)
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
    return f"the page shows the picture tokens' share of the attention, not their places: {reason}"


def kept_layers(config: Any, layers: Sequence[int] | None, per_head: int, budget: int) -> list[int]:
    """The layers whose maps are kept: `layers`, or as many as `budget` bytes hold with `per_head` values."""
    depth, heads = int(config.num_hidden_layers), int(config.num_attention_heads)
    if layers is not None:
        wrong = [layer for layer in layers if not 0 <= layer < depth]
        if wrong or not layers:
            given = f"{wrong[0]} is outside" if wrong else "names none of"
            raise ConfigError(f"--layers: {given} 0..{depth - 1}; give numbers of layers, from 0")
        return sorted(set(layers))
    fits = max(1, budget // max(1, 2 * heads * per_head))  # raw and norm-based, one byte each
    return sorted({round(x) for x in np.linspace(depth - 1, 0, min(depth, fits))})


def opened(number: int, given: Any) -> Picture:
    from PIL.Image import Image

    if isinstance(given, Image):
        return Picture(f"picture {number + 1}", given.convert("RGB"))
    return Picture(Path(given).name, read_rgb(given))


def _pieces(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    return [str(piece) for piece in tokenizer.convert_ids_to_tokens(list(ids))]
