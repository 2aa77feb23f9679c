"""`VisionAtlas(model, image_processor).look(images, boxes)`: the look of a model that sees images only.

Each image has a separate pass. The result holds the positions of all images, one after the other, without
attention between images.

Axes: L layer, M layer with maps, H head, S position, W word, T patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_atlas.capture.summaries import sink_keys
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import ConfigError
from attention_atlas.look.atlas import BUDGET, opened
from attention_atlas.look.attend import WordCapture
from attention_atlas.look.keys import Keys, captured_words, kept_layers
from attention_atlas.look.result import Look
from attention_atlas.look.things import Thing, things_of
from attention_atlas.look.vision import Vision
from attention_atlas.look.words import Word

WHOLE = {"class": "class token", "image": "all patches"}


class VisionAtlas:
    """model: a transformers vision model (AutoModel of a ViT, DINOv2, a CLIP or SigLIP tower). processor: its
    image processor."""

    def __init__(self, model: Any, processor: Any = None) -> None:
        self.vision = model if isinstance(model, Vision) else Vision(model, processor)

    def look(
        self,
        image: Any,
        boxes: Sequence[Example] = (),
        layers: Sequence[int] | None = None,
        budget: int = BUDGET,
    ) -> Look:
        """What the class token and the patches in each box attend to.

        image: a path or PIL image, or a list of them. boxes: of things in these images; the attention of
        a box is the mean over the patches whose centre lies in it. Without a class token, the mean over all
        patches takes its place. layers, budget: as in `Atlas.look`.

        Raises AtlasError for a model whose sequence is not one grid of patches, ConfigError for a bad layer.
        """
        given = list(image) if isinstance(image, list | tuple) else [image]
        if not given:
            raise ConfigError("--image: no image; give at least one")
        images = [opened(n, x) for n, x in enumerate(given)]
        things = things_of(given, images, boxes)
        scenes = [self.vision.scene(p.pixels) for p in images]
        roles = [role for _, keys in scenes for role in keys.roles]
        starts = np.cumsum([0, *(len(keys.roles) for _, keys in scenes)])
        boxes_S4 = np.concatenate([keys.boxes_K4 for _, keys in scenes])
        image_S = np.repeat(np.arange(len(scenes)), np.diff(starts))
        image_S = np.where(np.array(roles) == "image", image_S, -1)
        words, notes = [], []
        for p, (_, keys) in enumerate(scenes):
            found, left = _words(p, keys, things)
            words.append(found)
            notes += left
        config = self.vision.net.config
        per_head = sum(map(len, words)) * roles.count("image")
        kept = kept_layers(config, scenes[0][1], layers, per_head, budget)
        passes = []
        for (inputs, keys), found in zip(scenes, words):
            options = len(keys.roles), found, kept, inputs
            capture, captured, more = captured_words(self.vision.net, keys, *options)
            passes.append((capture, captured))
            notes += [note for note in more if note not in notes]
        (kind,) = passes[0][1].values()
        found_layers = [layer for layer in kind.layers if layer in kept]
        joined = _Joined(passes, words, starts, np.array(roles) == "image", found_layers, kind.layers)
        visible = [joined.visible] * len(kind.layers)
        return Look(
            model=config.name_or_path or type(self.vision.net).__name__,
            prompt="",
            answer="",
            generated=False,
            images=images,
            tokens=_names(scenes),
            roles=roles,
            words=joined.words,
            layers=list(kind.layers),
            kept=found_layers,
            groups=list(kind.groups),
            values=joined.values,
            word_values=joined.word_values,
            received_LHS=joined.received_LHS,
            visible=visible,
            query_R=joined.query_R,
            sinks=joined.sinks,
            boxes_S4=boxes_S4,
            image_S=image_S,
            notes=notes,
            things=things,
        )


class _Joined:
    """The captures of all images as one sequence."""

    def __init__(
        self,
        passes: list[tuple[WordCapture, Any]],
        words: list[list[Word]],
        starts: np.ndarray,
        is_image_S: np.ndarray,
        kept: list[int],
        layers: Sequence[int],
    ) -> None:
        length, total = int(starts[-1]), sum(map(len, words))
        kinds = [next(iter(captured.values())) for _, captured in passes]
        self.values = {
            name: np.concatenate([kind.values[name][0].float().numpy() for kind in kinds], 2)
            for name in kinds[0].values
        }
        heads = self.values["entropy"].shape[1]
        self.received_LHS = np.zeros((len(layers), heads, length), np.float32)
        self.words: list[Word] = []
        self.word_values: dict[str, np.ndarray] = {}
        self.sinks: list[int] = []
        first_W = []
        at_image = np.cumsum(is_image_S) - 1
        for n, ((capture, _), found) in enumerate(zip(passes, words)):
            start, end = int(starts[n]), int(starts[n + 1])
            received_LHK = np.stack([capture.received[layer].numpy() for layer in layers])
            self.received_LHS[..., start:end] = received_LHK * len(found) / total
            self.sinks += (sink_keys(received_LHK) + start).tolist()
            own_W = slice(len(self.words), len(self.words) + len(found))
            own_T = at_image[start:end][is_image_S[start:end]]
            for name, by_layer in capture.word_values.items():
                if not by_layer:
                    continue
                part = np.stack([by_layer[layer].numpy() for layer in kept])
                wide = int(is_image_S.sum()) if name == "rollout" else length
                shape = (*part.shape[:-2], total, wide)
                values = self.word_values.setdefault(name, np.zeros(shape, np.float32))
                values[..., own_W, own_T if name == "rollout" else slice(start, end)] = part
            for word in found:
                rows = [start + row for row in word.rows]
                self.words.append(Word(word.text, word.part, rows, rows, True, word.image, word.box))
                first_W.append(rows[0])
        # All positions of an image see the same keys: one of each word is enough.
        self.query_R = sorted(set(first_W))
        number_R = np.searchsorted(starts, self.query_R, "right") - 1
        of_S = np.searchsorted(starts, np.arange(length), "right") - 1
        self.visible = number_R[:, None] == of_S


def _words(image: int, keys: Keys, things: list[Thing]) -> tuple[list[Word], list[str]]:
    """(the words of one image, notes on boxes without a patch)."""
    role = "class" if "class" in keys.roles else "image"
    whole = [n for n, own in enumerate(keys.roles) if own == role]
    found, notes = [Word(WHOLE[role], "image", whole, whole, True, image)], []
    boxes_K4 = keys.boxes_K4
    x_K, y_K = (boxes_K4[:, 0] + boxes_K4[:, 2]) / 2, (boxes_K4[:, 1] + boxes_K4[:, 3]) / 2
    for index, thing in enumerate(things):
        if thing.image != image:
            continue
        left, top, right, bottom = thing.box
        inside_K = (left <= x_K) & (x_K < right) & (top <= y_K) & (y_K < bottom)
        rows = np.flatnonzero(inside_K).tolist()
        if rows:
            found.append(Word(thing.name, "image", rows, rows, True, image, index))
        else:
            notes.append(f"{thing.name}: no patch has its centre in this box, so it cannot be chosen")
    return found, notes


def _names(scenes: Sequence[Any]) -> list[str]:
    """Names of the positions in the sinks and in statistics.h5."""
    names = []
    for _, keys in scenes:
        count: dict[str, int] = {}
        for role in keys.roles:
            count[role] = count.get(role, 0) + 1
            text = "patch" if role == "image" else role
            names.append(text if role == "class" else f"{text} {count[role]}")
    return names
