"""What the words of a sequence attend to: the positions of the sequence, or the keys of a cross-attention.
In a model that sees images only (vision.py), words are its class token and patches in boxes.

Axes: K key, L layer.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attention_atlas.capture import Captured, role_groups
from attention_atlas.capture.boxes import token_boxes
from attention_atlas.capture.cross_boxes import CROSS, image_keys
from attention_atlas.capture.sites import Sites
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.look.attend import WordCapture, decoder_layers
from attention_atlas.look.words import Word

OTHERS = {"class": "class tokens", "empty": "patches without a part of the image"}
LINEAR = "linear_attention"
LARGEST = 256_000_000  # bytes of the maps of one layer
NO_ROLLOUT = "no rollout: it is defined for self-attention (Abnar and Zuidema 2020)"


@dataclass(frozen=True)
class Keys:
    """cross: whether the keys are those of cross-attention to the images, not the positions of the
    sequence. globs: of the attention modules; layers: their numbers. roles, names: of the keys. boxes_K4,
    image_K: as in `token_boxes` and `image_keys`. reason: why no box is known; '' if some are."""

    cross: bool
    globs: list[str]
    layers: list[int]
    roles: list[str]
    names: list[str]
    boxes_K4: np.ndarray
    image_K: np.ndarray
    reason: str

    @property
    def image_T(self) -> list[int]:
        """The keys that are image tokens."""
        return [k for k, role in enumerate(self.roles) if role == "image"]

    @property
    def notes(self) -> list[str]:
        """How rows over the keys differ from those over a sequence, one line."""
        if not self.cross:
            return []
        counts = {name: self.roles.count(role) for role, name in OTHERS.items() if role in self.roles}
        rest = " and ".join(f"{count} {name}" for name, count in counts.items())
        layers = ", ".join(map(str, self.layers))
        return [
            f"the model reads images by cross-attention in layers {layers}: only these are shown. Rows are "
            "over the keys of the images and add up to 1, so they do not say how much a word reads the "
            f"images at all. Share on the image is that of {len(self.image_T)} patches; "
            + (f"the rest is on {rest}" if rest else "it is always 1")
        ]


def keys_of(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    roles: Sequence[str],
    sizes: Sequence[tuple[int, int]],
) -> Keys:
    """The keys for one example. inputs, roles: of its sequence. sizes: (height, width) of its images.

    Raises AtlasError for an encoder-decoder.
    """
    images = getattr(processor, "image_processor", None)
    layers = cross_layers(model)
    if layers:
        found = image_keys(model.config, inputs, sizes, images)
        boxes_K4 = found.boxes_K4.numpy()
        return Keys(
            cross=True,
            globs=key_globs(model),
            layers=layers,
            roles=found.roles,
            names=found.names,
            boxes_K4=boxes_K4,
            image_K=found.image_K.numpy(),
            reason="" if np.isfinite(boxes_K4).any() else "its keys have no place",
        )
    is_image_K = np.array([role == "image" for role in roles])
    try:
        boxes, image = token_boxes(model.config, inputs, sizes, images)
        boxes_K4, image_K = boxes.numpy(), image.numpy()
        reason = "" if np.isfinite(boxes_K4[is_image_K]).any() else "its tokens have no place"
    except AtlasError as error:
        # A single image has all image tokens, wherever they lie.
        image_K = np.where(is_image_K & (len(sizes) == 1), 0, -1)
        boxes_K4, reason = np.full((len(roles), 4), np.nan), str(error)
    layers = attention_layers(model.config.get_text_config())
    return Keys(False, key_globs(model), layers, list(roles), [], boxes_K4, image_K, reason)


def attention_layers(config: Any) -> list[int]:
    """The layers of a language model that have attention weights: not all in a hybrid model, some of whose
    layers are convolutions, linear attention or state spaces."""
    types = getattr(config, "layer_types", None) or ["full_attention"] * int(config.num_hidden_layers)
    return [n for n, kind in enumerate(types) if kind == "hybrid" or ("attention" in kind and kind != LINEAR)]


def word_capture(
    model: Any, keys: Keys, queries: int, words: Sequence[Word], kept: Sequence[int], norm: bool = True
) -> WordCapture:
    """The capture of the words' rows over these keys. queries: how many positions the sequence has."""
    groups = role_groups([keys.roles])
    image_T = None if keys.cross else keys.image_T
    return WordCapture(model, keys.globs, words, groups, image_T, kept, norm, queries)


def captured_words(
    model: Any,
    keys: Keys,
    queries: int,
    words: Sequence[Word],
    kept: Sequence[int],
    inputs: Mapping[str, Any],
) -> tuple[WordCapture, Captured, list[str]]:
    """(capture, its result, one-line notes on what it cannot show) of one pass over `inputs`; without norms
    where the model does not provide them.

    Raises AtlasError for a model that attends in several ways.
    """
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            capture = word_capture(model, keys, queries, words, kept)
            captured = capture(**inputs)
        except AtlasError as error:
            if "do not request norms" not in str(error):
                raise
            notes.append(f"no norm-based attention: {str(error).removeprefix('capture: ')}")
            capture = word_capture(model, keys, queries, words, kept, norm=False)
            captured = capture(**inputs)
    notes += [str(w.message) for w in caught if str(w.message).startswith("capture:")]
    if len(captured) != 1:
        raise AtlasError(
            f"{type(model).__name__}: its language model attends in several ways "
            f"({', '.join(captured)}), which cannot be shown together yet"
        )
    if capture.others:
        others = ", ".join(dict.fromkeys(capture.others))
        notes.append(f"not shown: {others} (not over the same positions)")
    return capture, captured, notes


def kept_layers(
    config: Any, keys: Keys, layers: Sequence[int] | None, per_head: int, budget: int
) -> list[int]:
    """The layers whose maps are kept: `layers`, or as many as `budget` bytes hold with `per_head` values.
    config: with num_attention_heads. Raises ConfigError for a layer that does not attend to the keys."""
    if layers is not None:
        return checked_layers(layers, keys.layers)
    per_layer = 2 * int(config.num_attention_heads) * per_head  # raw and norm-based, one byte each
    if per_layer > LARGEST:
        raise ConfigError(
            f"--prompt: the maps of a single layer would take {per_layer / 1e6:.0f} MB, too much for a page; "
            "shorten the prompt, or give fewer or smaller images"
        )
    fits = max(1, budget // max(1, per_layer))
    chosen = np.linspace(len(keys.layers) - 1, 0, min(len(keys.layers), fits))
    return sorted({keys.layers[round(n)] for n in chosen})


def checked_layers(layers: Sequence[int], known: Sequence[int]) -> list[int]:
    """--layers, sorted. Raises ConfigError for one that is not among the known ones."""
    wrong = [layer for layer in layers if layer not in known]
    if wrong or not layers:
        evenly = list(known) == list(range(len(known)))
        every = f"0..{len(known) - 1}" if evenly else ", ".join(map(str, known))
        given = f"{wrong[0]} is outside" if wrong else "names none of"
        more = "numbers of layers, from 0" if evenly else "numbers of layers with such attention, from 0"
        raise ConfigError(f"--layers: {given} {every}; give {more}")
    return sorted(set(layers))


def key_globs(model: Any) -> list[str]:
    """The globs of the modules that attend to the keys. Raises AtlasError for an encoder-decoder."""
    globs = decoder_layers(model)
    return [*globs, "!decoder", "!vision"] if cross_layers(model) else globs


def cross_layers(model: Any) -> list[int]:
    """Layers in which the language model attends to images that are not in the sequence; [] where images
    are tokens, or where the family is not in CROSS."""
    if model.config.model_type not in CROSS:
        return []
    return sorted({layer for layer, _ in cross_modules(model)})


def check_tokens(model: Any) -> None:
    """Raises AtlasError for a model that reads images by a cross-attention whose keys are not known."""
    found = [] if model.config.model_type in CROSS else cross_modules(model)
    if found:
        raise AtlasError(
            f"{type(model).__name__}: reads images by cross-attention ({found[0][1]}) whose keys are not "
            "known; add the family to capture/cross_boxes.py, or use a model whose images are tokens"
        )


def cross_modules(model: Any) -> list[tuple[int, str]]:
    """(layer, name) of each cross-attention module in the language model."""
    sites = Sites(model, ["*"], {})
    inside = f"{sites.decoder_name()}." if sites.decoder_name() else ""
    return [
        (sites.site(module)[2], name)
        for name, module in sites.modules.items()
        if name.startswith(inside) and name.endswith(("cross_attn", "crossattention"))
    ]
