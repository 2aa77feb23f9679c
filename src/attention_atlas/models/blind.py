"""The blind baseline: the captioner's decoder without an image, a language model of the descriptions.

What it scores is what the text alone gives away; a captioner must beat it clearly to have looked.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from attention_atlas.models.base import Batch, CaptionModel, xavier
from attention_atlas.models.transformer import Decoder


class BlindTransformer(CaptionModel):
    """A transformer decoder without cross-attention. `feature_dim` is taken and ignored."""

    def __init__(
        self,
        vocab_size: int,
        feature_dim: int = 0,
        layers: int = 6,
        heads: int = 8,
        dim: int = 512,
        inner: int = 2048,
        dropout: float = 0.1,
        attention_dropout: float | None = None,
        max_length: int = 152,
    ) -> None:
        super().__init__()
        on_weights = dropout if attention_dropout is None else attention_dropout
        self.decoder = Decoder(
            vocab_size, layers, heads, dim, inner, dropout, on_weights, max_length, cross=False
        )
        xavier(self)

    def forward(self, batch: Batch) -> Tensor:
        return self.decoder(batch["ids_BT"][:, :-1])[0]

    def encode(self, batch: Batch) -> Any:
        # Only the batch size and the device: the image is not looked at.
        return {"regions_BN": batch["regions_BN"]}

    def decode_step(self, memory: Any, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        new = ids_BT if state is None else ids_BT[:, -1:]
        logits_BTV, state = self.decoder(new, keep=True, past=state)
        return logits_BTV[:, -1], state
