"""The captioner of "How Vision Affects Language": several captions of one image share its encoding."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from attention_atlas.language.vocabulary import PAD
from attention_atlas.models.base import Batch
from attention_atlas.models.object_relation import ObjectRelationTransformer

GROUPS = 4  # by length: four groups leave little padding; more would make the matrices too small


class CaptionTransformer(ObjectRelationTransformer):
    """ObjectRelationTransformer for batches with `image_B`, the row of `features_BND` that caption b
    describes.

    With five captions per image the encoder runs once instead of five times, and captions are decoded in
    groups of similar length to reduce padding. Without `image_B` it is identical to its base class.
    """

    shares_images = True

    def encode(self, batch: Batch) -> Any:
        memory = super().encode(batch)
        return memory if "image_B" not in batch else rows_of(memory, batch["image_B"])

    def forward(self, batch: Batch) -> Tensor:
        """Teacher-forced logits (B,T-1,V); with `image_B` 0 after the end of a caption."""
        if "image_B" not in batch:
            return super().forward(batch)
        memory = super().encode(batch)
        ids_BT, image_B = batch["ids_BT"], batch["image_B"]
        length_B = (ids_BT != PAD).sum(1)
        parts, rows = [], []
        for row_G in length_B.argsort(stable=True).chunk(GROUPS):
            width = int(length_B[row_G].max())
            own = rows_of(memory, image_B[row_G])
            mask = own["regions_BN"][:, None, None]
            logits_GTV, _ = self.decoder(ids_BT[row_G, : width - 1], own["layers"], mask)
            parts.append(torch.nn.functional.pad(logits_GTV, (0, 0, 0, ids_BT.shape[1] - width)))
            rows.append(row_G)
        return torch.cat(parts)[torch.cat(rows).argsort()]


def rows_of(tree: Any, index_B: Tensor) -> Any:
    """The given rows (first axis) of every tensor in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return tree[index_B]
    if isinstance(tree, dict):
        return {key: rows_of(value, index_B) for key, value in tree.items()}
    return type(tree)(rows_of(value, index_B) for value in tree)
