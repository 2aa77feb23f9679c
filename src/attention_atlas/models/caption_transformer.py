"""The captioner of "How Vision Affects Language": several captions of one image share its encoding."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention_atlas.models.base import Batch
from attention_atlas.models.object_relation import ObjectRelationTransformer


class CaptionTransformer(ObjectRelationTransformer):
    """ObjectRelationTransformer for batches with `image_B`: the row of `features_BND` that caption b describes.

    With five captions for each image the encoder, most of the work for short captions, runs once instead of
    five times. Without `image_B` it is the same model as its base.
    """

    def encode(self, batch: Batch) -> Any:
        memory = super().encode(batch)
        return memory if "image_B" not in batch else rows_of(memory, batch["image_B"])


def rows_of(tree: Any, index_B: Tensor) -> Any:
    """The given rows (first axis) of every tensor in nested dicts, lists and tuples."""
    if isinstance(tree, Tensor):
        return tree[index_B]
    if isinstance(tree, dict):
        return {key: rows_of(value, index_B) for key, value in tree.items()}
    return type(tree)(rows_of(value, index_B) for value in tree)
