"""Packing several texts about one image into one sequence, equivalent to separate sequences.

A row is [image | text 1 | text 2 ...]; a text sees the image and itself, and its positions continue from
the image's end. So the image's positions, most of a short sequence, are computed once for all its texts.
The losses equal those of separate rows (tested).

Axes: B rows, S positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attention_atlas.models.vlm.inputs import IGNORED

# (ids, start of the learned text)
Row = tuple[Sequence[int], int]


def pack(rows_of_image: Sequence[Sequence[Row]], image_token_id: int, pad: int) -> dict[str, Tensor]:
    """input_ids, position_ids, labels (B,S) and seen_BSS (bool) of each image's texts.

    labels[s] is the token after position s, -100 where it does not count.
    """
    packed = [_pack_one(rows, image_token_id) for rows in rows_of_image]
    longest = max(len(ids) for ids, _, _, _ in packed)
    shape = (len(packed), longest)
    ids_BS, position_BS = torch.full(shape, pad), torch.zeros(shape, dtype=torch.long)
    labels_BS, segment_BS = torch.full(shape, IGNORED), torch.full(shape, -1)
    for b, (ids, positions, segments, labels) in enumerate(packed):
        for target, values in (
            (ids_BS, ids),
            (position_BS, positions),
            (segment_BS, segments),
            (labels_BS, labels),
        ):
            target[b, : len(values)] = torch.tensor(values)
    return {
        "input_ids": ids_BS,
        "position_ids": position_BS,
        "labels": labels_BS,
        "seen_BSS": seen(segment_BS),
    }


def seen(segment_BS: Tensor) -> Tensor:
    """Visible positions (B, query, key): earlier ones of the same segment or of segment 0, the image.
    Padding (-1) sees only itself, so that no row of the softmax is empty."""
    length = segment_BS.shape[1]
    query, key = segment_BS[:, :, None], segment_BS[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment_BS.device).tril()
    allowed = causal & ((key == query) | (key == 0)) & (query >= 0)
    return allowed | torch.eye(length, dtype=torch.bool, device=segment_BS.device)


def _pack_one(rows: Sequence[Row], image_token_id: int) -> tuple[list[int], list[int], list[int], list[int]]:
    first = list(rows[0][0])
    prefix = len(first) - first[::-1].index(image_token_id) if image_token_id in first else 0
    ids, positions = first[:prefix], list(range(prefix))
    segments, labels = [0] * prefix, [IGNORED] * prefix
    for number, (row, start) in enumerate(rows, start=1):
        part = list(row[prefix:])
        ids += part
        positions += range(prefix, len(row))
        segments += [number] * len(part)
        following = [*part[1:], IGNORED]
        labels += [token if prefix + i + 1 >= start else IGNORED for i, token in enumerate(following)]
    return ids, positions, segments, labels


def packed_loss(model: Any, batch: Mapping[str, Tensor], images_BND: Tensor | None) -> Tensor:
    """Mean cross-entropy of the counted tokens of a packed batch, nats. images_BND: embeddings at the
    image's positions, None for a blind model."""
    ids_BS = batch["input_ids"]
    x_BSD = model.language_model.embed_tokens(ids_BS)
    if images_BND is not None:
        where = (ids_BS == model.image_token_id)[..., None]
        x_BSD = x_BSD.masked_scatter(where, images_BND.to(x_BSD.dtype))
    hidden_BSD = model.language_model(
        inputs_embeds=x_BSD,
        attention_mask=batch["seen_BSS"][:, None],
        position_ids=batch["position_ids"],
        use_cache=False,
    ).last_hidden_state
    counted = batch["labels"] != IGNORED
    return F.cross_entropy(model.head(hidden_BSD[counted]), batch["labels"][counted])
