"""Text-only language models of GPT-2's architecture, trained here or loaded (distilgpt2 by hub id or
path)."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.language.subwords import Subwords

IGNORED = -100  # label of a position that does not count


class TextOnlyTransformer(nn.Module):
    """GPT-2 over sub-word pieces. `pieces`: size of the vocabulary; the output matrix is the embedding
    matrix.

    initializer_range: standard deviation of new weights. GPT-2's 0.02 is for 768 dimensions; in a narrow
    model it makes the attention scores of all words nearly equal, and many heads stay that way.

    weights: "" for a new model of the given sizes, else a hub id or folder in transformers' format, which
    sets all sizes.
    """

    def __init__(
        self,
        pieces: int,
        layers: int = 6,
        heads: int = 12,
        dim: int = 768,
        dropout: float = 0.1,
        max_length: int = 1024,
        initializer_range: float = 0.02,
        weights: str = "",
    ) -> None:
        super().__init__()
        from transformers import GPT2Config, GPT2Model

        if dim % heads:
            raise ConfigError(
                f"TextOnlyTransformer: dim: {dim} is not a multiple of heads {heads}; change one of them"
            )
        if weights:
            self.gpt2 = self._loaded(weights)
            known = self.gpt2.config.vocab_size
            if known != pieces:
                raise AtlasError(
                    f"{weights}: has {known} pieces, its tokenizer {pieces}; use those of one model"
                )
        else:
            self.gpt2 = GPT2Model(
                GPT2Config(
                    vocab_size=pieces,
                    n_positions=max_length,
                    n_embd=dim,
                    n_layer=layers,
                    n_head=heads,
                    resid_pdrop=dropout,
                    embd_pdrop=dropout,
                    attn_pdrop=0.0,
                    initializer_range=initializer_range,
                    bos_token_id=0,
                    eos_token_id=0,
                )
            )
        for index, block in enumerate(self.gpt2.h):
            # The attributes that a capture reads from an attention module; see capture/seam.py.
            block.attn.attention_kind, block.attn.layer_index = "decoder_self", index

    @staticmethod
    def _loaded(weights: str) -> Any:
        from transformers import GPT2Model

        with loading(f"{weights}:", "give a hub id or a folder with a GPT-2 model"):
            return GPT2Model.from_pretrained(weights)

    def forward(self, ids_BT: Tensor) -> Tensor:
        """Logits (B,T,V): row i, given pieces 0..i, scores piece i+1. Padding is at the right, where the
        causal mask hides it."""
        hidden_BTD = self.gpt2(input_ids=ids_BT, use_cache=False).last_hidden_state
        return F.linear(hidden_BTD, self.gpt2.wte.weight)

    def loss(self, ids_BT: Tensor, labels_BT: Tensor) -> Tensor:
        """Mean cross-entropy per counted piece, nats."""
        return F.cross_entropy(self(ids_BT).flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED)


def load_pretrained(
    weights: str, tokenizer: str = "", device: str = "cpu"
) -> tuple[TextOnlyTransformer, Subwords, dict[str, Any]]:
    """A published model: (model in evaluation mode, its sub-words, {}). weights: hub id or folder. tokenizer:
    location of its tokenizer, if not beside the weights. Raises AtlasError if one is missing."""
    subwords = Subwords.pretrained(tokenizer or weights)
    return TextOnlyTransformer(len(subwords), weights=weights).to(device).eval(), subwords, {}
