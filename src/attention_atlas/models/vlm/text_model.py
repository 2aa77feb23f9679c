"""The language model of the vision LLMs: LLaMA (Touvron et al. 2023) with transformers' class."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError
from attention_atlas.models.vlm.inputs import IGNORED


def llama_config(
    pieces: int,
    layers: int,
    heads: int,
    kv_heads: int,
    dim: int,
    inner: int,
    max_length: int,
    initial_std: float,
    tied: bool = False,
) -> dict[str, Any]:
    """transformers' LlamaConfig for these sizes. Ids are those of models/vlm/tokenizer.py."""
    if dim % heads or (dim // heads) % 2:
        raise ConfigError(
            f"llama_config: heads: {heads} do not divide dim {dim} into even widths (rotary pairs); "
            "change one"
        )
    if heads % kv_heads:
        raise ConfigError(f"llama_config: kv_heads: {kv_heads} do not divide heads {heads}; change one")
    return {
        "vocab_size": pieces,
        "hidden_size": dim,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": max_length,
        "initializer_range": initial_std,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 3,
        "tie_word_embeddings": tied,
    }


class LlamaText(nn.Module):
    """`model`: LlamaForCausalLM. forward(ids_BT) -> logits (B,T,V). tied: the matrix that embeds words also
    predicts them."""

    def __init__(
        self,
        pieces: int,
        layers: int = 12,
        heads: int = 4,
        kv_heads: int = 4,
        dim: int = 96,
        inner: int = 256,
        max_length: int = 512,
        initial_std: float = 0.08,
        tied: bool = False,
    ) -> None:
        super().__init__()
        from transformers import LlamaConfig, LlamaForCausalLM

        sizes = llama_config(pieces, layers, heads, kv_heads, dim, inner, max_length, initial_std, tied)
        self.model = LlamaForCausalLM(LlamaConfig(**sizes))

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Padding is at the right, where the causal mask hides it."""
        return self.model(input_ids=ids_BT, use_cache=False).logits

    def loss(self, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy, nats; labels_BT[i] is the token after ids_BT[..i], -100 does not count."""
        return F.cross_entropy(self(ids_BT).flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED)
