"""Roles of the positions of a model's sequence.

They are derived from ids and configuration (`input_ids == config.image_token_id`), never from fixed offsets:
the number of image tokens differs between images, and padding may be left or right.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from attention_atlas.errors import AtlasError

MEDIA = ("image", "video", "audio")
# Inputs that locate images for models without an id for them: 0 text, else an index into MEDIA + 1.
MASKS = ("image_embeds_position_mask", "mm_token_type_ids")
# Parts of a configuration whose special ids are not those of the text.
NOT_TEXT = ("vision", "audio", "qformer", "vq", "image")
PIXELS = (
    "pixel_values",
    "image_patches",
    "image_embeds",
    "flattened_patches",
    "visual_embeds",
    "visual_feats",
)


def roles_of(inputs: Mapping[str, Any], config: Any, special_ids: Iterable[int] = ()) -> list[list[str]]:
    """Roles of the (B,K) positions of a processor's `inputs` (input_ids, attention_mask, pixels, ...).

    As roles_of_ids; where the configuration has no id for images (Kosmos-2), a mask in the inputs gives
    their positions. Raises AtlasError when the inputs hold an image or video but no position has one.
    """
    if "input_ids" not in inputs:
        raise AtlasError(f"roles: inputs hold no input_ids, only {', '.join(inputs)}; pass the processor's")
    ids_BK = torch.as_tensor(inputs["input_ids"])
    place_BK = None
    if not media_ids(config):
        place_BK = next((torch.as_tensor(inputs[n]) for n in MASKS if inputs.get(n) is not None), None)
    roles = _roles(ids_BK, config, inputs.get("attention_mask"), special_ids, place_BK)
    pixels = [name for name, value in inputs.items() if value is not None and _holds_pixels(name)]
    if pixels and not any(role in ("image", "video") for row in roles for role in row):
        raise AtlasError(
            f"roles: {config.model_type}: the inputs hold {pixels[0]}, but no position of input_ids is an "
            "image. If the model has a sequence or tower of its own for images, use roles_of_ids for the "
            "text; else correct the prompt (it needs the processor's image token) or set "
            "config.image_token_id"
        )
    return roles


def roles_of_ids(
    input_ids: Tensor, config: Any, attention_mask: Tensor | None = None, special_ids: Iterable[int] = ()
) -> list[list[str]]:
    """Roles of (B,K) ids, from a transformers config, also one nested in it (ColPali's vlm_config).

    pad: attention_mask 0, on whichever side (without a mask: the pad id, unless it is also the EOS id).
    image, video, audio: config.image_token_id and so on (image_token_index in older files). bos, eos: the
    config's. special: `special_ids`, for example tokenizer.all_special_ids. The rest is text.

    Raises AtlasError for a family whose ids do not tell where images are (Kosmos-2): see roles_of.
    """
    if hasattr(config, "latent_query_num") and not media_ids(config):
        raise AtlasError(
            f"roles: {config.model_type}: has no id for images; use roles_of(inputs, config) with the "
            "processor's inputs, which hold image_embeds_position_mask"
        )
    return _roles(torch.as_tensor(input_ids), config, attention_mask, special_ids, None)


def media_ids(config: Any) -> dict[str, int]:
    """{"image", "video", "audio": the id of its placeholder}, as far as the configuration has them.

    The outermost configuration that has an id decides.
    """
    found: dict[str, int] = {}
    for part in parts(config):
        for name in MEDIA:
            for field in (f"{name}_token_id", f"{name}_token_index"):
                value = getattr(part, field, None)
                if isinstance(value, int):
                    found.setdefault(name, value)
    return found


def parts(config: Any, without: tuple[str, ...] = ()) -> Iterator[Any]:
    """The configuration and those nested in it, outermost first, except names that start with `without`."""
    level = [config]
    while level:
        yield from level
        nested = []
        for part in level:
            names = dict.fromkeys(["text_config", *getattr(part, "sub_configs", ())])
            nested += [getattr(part, name, None) for name in names if not name.startswith(without)]
        level = [part for part in nested if part is not None]


def _roles(
    ids_BK: Tensor,
    config: Any,
    attention_mask: Any,
    special_ids: Iterable[int],
    place_BK: Tensor | None,
) -> list[list[str]]:
    bos, eos = _ids(config, "bos_token_id"), _ids(config, "eos_token_id")
    pad = _ids(config, "pad_token_id") - eos - bos
    special = set(map(int, special_ids))
    known: dict[int, str] = {}
    for name, tokens in (("special", special), ("eos", eos), ("bos", bos)):
        known |= dict.fromkeys(tokens, name)
    # A placeholder keeps its medium's role even if a tiny configuration uses its id as EOS.
    known |= {token: name for name, token in reversed(media_ids(config).items())}
    visible_BK = ids_BK.new_ones(ids_BK.shape, dtype=torch.bool)
    if attention_mask is not None:
        visible_BK = torch.as_tensor(attention_mask).bool()
    elif pad:
        visible_BK = ~torch.isin(ids_BK, torch.tensor(sorted(pad)).to(ids_BK))
    if visible_BK.shape != ids_BK.shape:
        raise AtlasError(
            "roles: attention_mask and input_ids differ in shape; pass both from one processor call"
        )
    places = ids_BK.new_zeros(ids_BK.shape) if place_BK is None else place_BK
    if places.shape != ids_BK.shape:
        raise AtlasError(
            f"roles: the mask of images has shape {tuple(places.shape)}, but input_ids has "
            f"{tuple(ids_BK.shape)}; pass both from one processor call"
        )
    return [
        [
            "pad" if not seen else MEDIA[int(place) - 1] if place else known.get(token, "text")
            for token, seen, place in zip(*row)
        ]
        for row in zip(ids_BK.tolist(), visible_BK.tolist(), places.tolist())
    ]


def _holds_pixels(name: str) -> bool:
    return "pixel_values" in name or name in PIXELS


def _ids(config: Any, name: str) -> set[int]:
    """Ids of the configuration and those of its text parts; each may hold one, a list, or none."""
    found: set[int] = set()
    for part in parts(config, without=NOT_TEXT):
        value = getattr(part, name, None)
        if value is not None:
            found |= set(map(int, value)) if isinstance(value, list | tuple) else {int(value)}
    return found
