"""The released Object Relation Transformer as it was trained: with the inner skip of its encoder attention.

The released checkpoint (and with it the model of "How Vision Affects Language") adds the attention's input to
the heads' output before the last projection, in addition to the outer residual connection. Later versions of
the public code have the option `legacy_extra_skip` for this.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F

from attention_atlas.models.attention import MultiHeadAttention
from attention_atlas.models.object_relation import ObjectRelationTransformer


class SkipAttention(MultiHeadAttention):
    """Self-attention with output(heads + x) in place of output(heads)."""

    def forward(self, target_BQD: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # output is linear, so output(x) can be added afterwards: captures still see only the heads.
        return super().forward(target_BQD, *args, **kwargs) + F.linear(target_BQD, self.output.weight)


class ReleasedObjectRelation(ObjectRelationTransformer):
    """ObjectRelationTransformer; `legacy_extra_skip` as the released checkpoint was trained."""

    def __init__(self, *args: Any, legacy_extra_skip: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if legacy_extra_skip:
            for layer in self.encoder:
                layer.self_attention.__class__ = SkipAttention
