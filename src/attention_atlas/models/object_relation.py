"""Object Relation Transformer (Herdade et al. 2019), the captioner of "Attention as Grounding".

The encoder's self-attention adds the log of a learned function of the boxes' relative geometry to its
scores; the decoder is a plain transformer decoder with attention over the encoded regions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.capture.seam import residual_input
from attention_atlas.models.attention import MultiHeadAttention
from attention_atlas.models.base import Batch, CaptionModel, xavier
from attention_atlas.models.dropout import Dropout
from attention_atlas.models.standardise import Standardise
from attention_atlas.models.transformer import Decoder, FeedForward, LayerNorm

GEOMETRY_DIM = 64


def box_geometry(boxes_BN4: Tensor) -> Tensor:
    """Relative geometry of each pair of boxes, (B,N,N,4); the first N is the query.

    log(max(|Δcx|/w_i, 1e-3)), log(max(|Δcy|/h_i, 1e-3)), log(w_i/w_j), log(h_i/h_j) (Herdade et al. 2019,
    eq. 5). As in the published code, the boxes are relative to the image but use the pixel convention
    w = x2 − x1 + 1, so that w and h are in 1..2.
    """
    x1, y1, x2, y2 = boxes_BN4.unbind(-1)
    cx, cy = (x1 + x2) / 2, (y1 + y2) / 2
    w, h = x2 - x1 + 1, y2 - y1 + 1
    dx = torch.log(((cx[:, :, None] - cx[:, None]) / w[:, :, None]).abs().clamp(min=1e-3))
    dy = torch.log(((cy[:, :, None] - cy[:, None]) / h[:, :, None]).abs().clamp(min=1e-3))
    return torch.stack(
        [dx, dy, torch.log(w[:, :, None] / w[:, None]), torch.log(h[:, :, None] / h[:, None])], -1
    )


def geometry_embedding(boxes_BN4: Tensor) -> Tensor:
    """(B,N,N,64): sines, then cosines, of 100 · geometry · 1000^(−k/8), k = 0..7, for the four numbers."""
    geometry = box_geometry(boxes_BN4)
    k = torch.arange(GEOMETRY_DIM // 8, device=boxes_BN4.device, dtype=boxes_BN4.dtype)
    angle = (100 * geometry[..., None] * 1000 ** (-k / 8)).flatten(-2)
    return torch.cat([torch.sin(angle), torch.cos(angle)], -1)


class EncoderLayer(nn.Module):
    """x + self-attention with geometry bias, x + feed-forward; each of norm(x)."""

    def __init__(
        self, dim: int, heads: int, inner: int, dropout: float, attention_dropout: float, index: int
    ) -> None:
        super().__init__()
        self.norm_self = LayerNorm(dim)
        self.self_attention = MultiHeadAttention(dim, heads, "encoder_self", index, attention_dropout)
        self.geometry = nn.Linear(GEOMETRY_DIM, heads)
        self.norm_feed = LayerNorm(dim)
        self.feed_forward = FeedForward(dim, inner, dropout)
        self.dropout = Dropout(dropout)

    def bias(self, geometry_BNND: Tensor) -> Tensor:
        """log(max(ReLU(linear(geometry)), 1e-6)) per head, (B,H,N,N)."""
        return torch.log(F.relu(self.geometry(geometry_BNND)).clamp(min=1e-6)).permute(0, 3, 1, 2)

    def forward(self, x_BND: Tensor, geometry_BNND: Tensor, mask: Tensor) -> Tensor:
        residual_input(self.self_attention, x_BND)
        attended = self.self_attention(self.norm_self(x_BND), mask=mask, bias=self.bias(geometry_BNND))
        x_BND = x_BND + self.dropout(attended)
        return x_BND + self.dropout(self.feed_forward(self.norm_feed(x_BND)))


class ObjectRelationTransformer(CaptionModel):
    """Region features and boxes to words.

    Published sizes: 6 layers, 8 heads, dim 512, inner 2048, dropout 0.1 (0.5 after the features' projection).
    `attention_dropout` None means `dropout`; 0 allows fused attention in training on a CPU. `encoder_init`
    scales the initial output matrices of the encoder's residual branches; 1 as published. Below 1 the encoder
    starts near the identity, and regions stay distinct at a high learning rate. `standardised`: features have
    mean 0 and deviation 1 over the training regions (as published: unchanged). `blind`: every image is one
    region of zeros over the whole image, so that only the text is informative.
    """

    def __init__(
        self,
        vocab_size: int,
        feature_dim: int,
        layers: int = 6,
        heads: int = 8,
        dim: int = 512,
        inner: int = 2048,
        dropout: float = 0.1,
        feature_dropout: float = 0.5,
        attention_dropout: float | None = None,
        max_length: int = 152,
        encoder_init: float = 1.0,
        standardised: bool = False,
        blind: bool = False,
    ) -> None:
        super().__init__()
        self.blind = blind
        on_weights = dropout if attention_dropout is None else attention_dropout
        self.standardise = Standardise(feature_dim) if standardised else nn.Identity()
        self.project = nn.Sequential(nn.Linear(feature_dim, dim), nn.ReLU(), Dropout(feature_dropout))
        self.encoder = nn.ModuleList(
            EncoderLayer(dim, heads, inner, dropout, on_weights, i) for i in range(layers)
        )
        self.encoder_norm = LayerNorm(dim)
        self.decoder = Decoder(vocab_size, layers, heads, dim, inner, dropout, on_weights, max_length)
        xavier(self)
        with torch.no_grad():
            for layer in self.encoder:
                layer.self_attention.output.weight.mul_(encoder_init)  # type: ignore[union-attr, operator]
                layer.feed_forward.outer.weight.mul_(encoder_init)  # type: ignore[union-attr, operator]

    def encode_regions(self, batch: Batch) -> Tensor:
        """Encoded regions (B,N,D)."""
        x_BND = self.project(self.standardise(batch["features_BND"]))
        geometry_BNND = geometry_embedding(batch["boxes_BN4"])
        mask = batch["regions_BN"][:, None, None]
        for layer in self.encoder:
            x_BND = layer(x_BND, geometry_BNND, mask)
        return self.encoder_norm(x_BND)

    def encode(self, batch: Batch) -> Any:
        if self.blind:
            batch = without_image(batch)
        return {"layers": self.decoder.memory(self.encode_regions(batch)), "regions_BN": batch["regions_BN"]}

    def forward(self, batch: Batch) -> Tensor:
        memory = self.encode(batch)
        return self.decoder(batch["ids_BT"][:, :-1], memory["layers"], _mask(memory))[0]

    def decode_step(self, memory: Any, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        new = ids_BT if state is None else ids_BT[:, -1:]
        logits_BTV, state = self.decoder(new, memory["layers"], _mask(memory), keep=True, past=state)
        return logits_BTV[:, -1], state


def without_image(batch: Batch) -> Batch:
    """The batch with a single region: zero features (B,1,F), and a box (B,1,4) over the whole image."""
    features_B1F = torch.zeros_like(batch["features_BND"][:, :1])
    box_4 = features_B1F.new_tensor([0.0, 0.0, 1.0, 1.0])
    return {
        **batch,
        "features_BND": features_B1F,
        "boxes_BN4": box_4.expand(len(features_B1F), 1, 4),
        "regions_BN": torch.ones_like(batch["regions_BN"][:, :1]),
    }


def _mask(memory: Any) -> Tensor:
    return memory["regions_BN"][:, None, None]
