"""The text encoder: a bidirectional LSTM whose states are words and whose last states are the sentence."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from attention_atlas.errors import ConfigError
from attention_atlas.language.vocabulary import PAD


class TextEncoder(nn.Module):
    """ids (B,T), words then PAD, no BOS or EOS -> words (B,T,D), 0 at padding, and sentence (B,D).

    dim: of both directions together (256 in the paper); embedding: of a word (300); dropout: of embeddings.
    Embeddings are initialised uniformly within ±`embedding_init` (0.1 as published).
    """

    def __init__(
        self,
        vocab_size: int,
        dim: int = 256,
        embedding: int = 300,
        dropout: float = 0.5,
        embedding_init: float = 0.1,
    ) -> None:
        super().__init__()
        if dim % 2:
            raise ConfigError(f"TextEncoder: dim: {dim} must be even, half of it for each direction")
        self.embed = nn.Embedding(vocab_size, embedding, padding_idx=PAD)
        nn.init.uniform_(self.embed.weight, -embedding_init, embedding_init)
        with torch.no_grad():
            self.embed.weight[PAD] = 0
        self.drop = nn.Dropout(dropout)
        self.lstm = nn.LSTM(embedding, dim // 2, batch_first=True, bidirectional=True)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        lengths = (ids_BT != PAD).sum(1).cpu()
        packed = pack_padded_sequence(
            self.drop(self.embed(ids_BT)), lengths, batch_first=True, enforce_sorted=False
        )
        states, (last, _) = self.lstm(packed)
        words_BTD, _ = pad_packed_sequence(states, batch_first=True, total_length=ids_BT.shape[1])
        return words_BTD, torch.cat([last[0], last[1]], -1)
