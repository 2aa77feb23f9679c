"""From an example to the model's inputs, and where the image's tokens lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from attention_atlas.capture import roles_of_ids
from attention_atlas.data.images import read_rgb
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError
from attention_atlas.ground.attend import phrase_positions
from attention_atlas.look.inputs import image_token, prompt_inputs, tokenizer_of
from attention_atlas.look.keys import Keys, keys_of
from attention_atlas.look.vision import Vision
from attention_atlas.measures.places import Places


class Scene:
    """Turns an example into the model's inputs and their geometry. The last image is kept."""

    def __init__(self, model: Any, processor: Any, prompt: str, query: str) -> None:
        self.model, self.processor, self.prompt, self.query = model, processor, prompt, query
        self.keys, self.notes = 0, list[str]()  # of the last example
        self._key = ""
        self._image: Any = None

    def image(self, example: Example) -> Any:
        if example.key != self._key:
            given = example.image
            image = read_rgb(given) if isinstance(given, str | Path) else given.convert("RGB")
            self._key, self._image = example.key, image
        return self._image

    def of(self, example: Example) -> tuple[dict[str, Any], list[int], list[int], Places]:
        """(inputs, query rows, keys of the image that have a place, their places)."""
        image = self.image(example)
        text = self.prompt.replace("{phrase}", example.phrase)
        inputs = prompt_inputs(self.model, self.processor, [image], text)
        tokenizer = tokenizer_of(self.processor)
        special = set(getattr(tokenizer, "all_special_ids", ()))
        ids = inputs["input_ids"][0].tolist()
        mask = inputs.get("attention_mask")
        (roles,) = roles_of_ids(inputs["input_ids"], self.model.config, mask, special)
        keys = keys_of(self.model, self.processor, inputs, roles, [image.size[::-1]])
        if keys.reason:
            raise AtlasError(f"{type(self.model).__name__}: no place in the image is known: {keys.reason}")
        rows = [len(ids) - 1]
        if self.query == "phrase":
            template = self.prompt.replace(image_token(self.processor), " ")
            rows = phrase_positions(tokenizer, ids, roles, template, example.phrase)
            if not rows:
                raise AtlasError(
                    f"{_place(example)}: phrase: '{example.phrase}' is not in the tokenised prompt "
                    f"'{tokenizer.decode(ids, skip_special_tokens=True).strip()[-80:]}'; spell it otherwise"
                )
        return inputs, rows, *self._placed(keys)

    def _placed(self, keys: Keys) -> tuple[list[int], Places]:
        self.keys, self.notes = len(keys.roles), keys.notes
        placed = np.flatnonzero(np.isfinite(keys.boxes_K4[:, 0])).tolist()
        return placed, Places(keys.boxes_K4[placed])


class VisionScene(Scene):
    """The same for a model that sees images only: its class token attends, or all patches without one."""

    def __init__(self, vision: Vision) -> None:
        super().__init__(vision.net, vision.processor, "", "")
        self.vision = vision

    def of(self, example: Example) -> tuple[dict[str, Any], list[int], list[int], Places]:
        inputs, keys = self.vision.scene(self.image(example))
        self.query = "class token" if "class" in keys.roles else "all patches"
        role = "class" if "class" in keys.roles else "image"
        rows = [n for n, own in enumerate(keys.roles) if own == role]
        return inputs, rows, *self._placed(keys)


def _place(example: Example) -> str:
    return example.where[0] if example.where else example.name
