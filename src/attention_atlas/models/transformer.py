"""The transformer's parts, as in the Object Relation Transformer's code: pre-LN with a final norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.capture.seam import residual_input
from attention_atlas.models.attention import MultiHeadAttention, causal_mask
from attention_atlas.models.dropout import Dropout

KeyValues = tuple[Tensor, Tensor]


class LayerNorm(nn.Module):
    """gain · (x − mean) / (std + eps) + bias, with the unbiased standard deviation.

    The published code's norm differs from nn.LayerNorm: std is unbiased (n−1), and eps is added to std, not
    to the variance. Computed by the fused kernel: the factor sqrt((n−1)/n) makes its standard deviation
    unbiased, and eps² in the variance is equivalent where std is 0 or much larger than eps.
    """

    def __init__(self, dim: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x_BTD: Tensor) -> Tensor:
        dim = x_BTD.shape[-1]
        return F.layer_norm(x_BTD, (dim,), self.gain * math.sqrt((dim - 1) / dim), self.bias, self.eps**2)


class FeedForward(nn.Module):
    def __init__(self, dim: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(dim, inner)
        self.outer = nn.Linear(inner, dim)
        self.dropout = Dropout(dropout)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.outer(self.dropout(F.relu(self.inner(x_BTD))))


def sinusoids(length: int, dim: int) -> Tensor:
    """Positions (T,D): sine in the even columns, cosine in the odd ones (Vaswani et al. 2017, §3.5)."""
    position = torch.arange(length, dtype=torch.float)[:, None]
    rate = torch.exp(torch.arange(0, dim, 2, dtype=torch.float) * (-math.log(10000.0) / dim))
    table_TD = torch.zeros(length, dim)
    table_TD[:, 0::2] = torch.sin(position * rate)
    table_TD[:, 1::2] = torch.cos(position * rate[: dim // 2])
    return table_TD


class WordEmbedding(nn.Module):
    """Word vectors × sqrt(dim), plus sinusoidal positions, then dropout."""

    def __init__(self, vocab_size: int, dim: int, dropout: float, max_length: int) -> None:
        super().__init__()
        self.words = nn.Embedding(vocab_size, dim)
        self.dropout = Dropout(dropout)
        self.scale = math.sqrt(dim)
        self.positions_TD: Tensor
        self.register_buffer("positions_TD", sinusoids(max_length, dim), persistent=False)

    def forward(self, ids_BT: Tensor, start: int = 0) -> Tensor:
        end = start + ids_BT.shape[1]
        if end > len(self.positions_TD):  # longer than the table: extend it
            self.positions_TD = sinusoids(2 * end, self.positions_TD.shape[1]).to(self.positions_TD)
        return self.dropout(self.words(ids_BT) * self.scale + self.positions_TD[start:end])


class DecoderLayer(nn.Module):
    """x + self-attention, + cross-attention x + feed-forward, each of norm(x)."""

    def __init__(
        self, dim: int, heads: int, inner: int, dropout: float, attention_dropout: float, index: int
    ) -> None:
        super().__init__()
        self.norm_self = LayerNorm(dim)
        self.self_attention = MultiHeadAttention(dim, heads, "decoder_self", index, attention_dropout)
        self.norm_cross = LayerNorm(dim)
        self.cross_attention = MultiHeadAttention(dim, heads, "cross", index, attention_dropout)
        self.norm_feed = LayerNorm(dim)
        self.feed_forward = FeedForward(dim, inner, dropout)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x_BTD: Tensor,
        mask: Tensor | None,
        memory: KeyValues | None,
        memory_mask: Tensor | None,
        keep: bool = False,
        past: KeyValues | None = None,
    ) -> tuple[Tensor, KeyValues | None]:
        """The layer's output and, if `keep`, the keys and values so far, including those of `past`."""
        residual_input(self.self_attention, x_BTD)
        normed = self.norm_self(x_BTD)
        present = None
        if keep:
            present = self.self_attention.keys_values(normed)
            if past is not None:
                present = (torch.cat([past[0], present[0]], 2), torch.cat([past[1], present[1]], 2))
        attended = self.self_attention(normed, keys_values=present, mask=mask)
        x_BTD = x_BTD + self.dropout(attended)
        residual_input(self.cross_attention, x_BTD)
        normed = self.norm_cross(x_BTD)
        attended = self.cross_attention(normed, keys_values=memory, mask=memory_mask)
        x_BTD = x_BTD + self.dropout(attended)
        x_BTD = x_BTD + self.dropout(self.feed_forward(self.norm_feed(x_BTD)))
        return x_BTD, present


class Decoder(nn.Module):
    """Embedding, layers, final norm and the projection to the vocabulary."""

    def __init__(
        self,
        vocab_size: int,
        layers: int,
        heads: int,
        dim: int,
        inner: int,
        dropout: float,
        attention_dropout: float,
        max_length: int,
    ) -> None:
        super().__init__()
        self.embedding = WordEmbedding(vocab_size, dim, dropout, max_length)
        self.layers = nn.ModuleList(
            DecoderLayer(dim, heads, inner, dropout, attention_dropout, i) for i in range(layers)
        )
        self.norm = LayerNorm(dim)
        self.generator = nn.Linear(dim, vocab_size)

    def memory(self, memory_BND: Tensor) -> list[KeyValues]:
        """Keys and values of the regions per layer, projected once per generation."""
        return [layer.cross_attention.keys_values(memory_BND) for layer in self.layers]  # type: ignore

    def forward(
        self,
        ids_BT: Tensor,
        memory: list[KeyValues] | None = None,
        memory_mask: Tensor | None = None,
        keep: bool = False,
        past: list[KeyValues] | None = None,
    ) -> tuple[Tensor, list[KeyValues]]:
        """Logits (B,T,V) for all positions of `ids_BT`, which follow those in `past`.

        `keep` returns each layer's keys and values, to be passed as `past`; else that list is empty.
        """
        start = 0 if past is None else past[0][0].shape[2]
        length = ids_BT.shape[1]
        mask = None if length == 1 else causal_mask(start + length, ids_BT.device)[:, :, start:]
        x_BTD = self.embedding(ids_BT, start)
        present: list[KeyValues] = []
        for i, layer in enumerate(self.layers):
            x_BTD, keys_values = layer(
                x_BTD, mask, memory[i] if memory else None, memory_mask, keep, past[i] if past else None
            )
            if keep:
                present.append(keys_values)
        return self.generator(self.norm(x_BTD)), present
