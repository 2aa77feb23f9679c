"""A small LLaVA-1.5 (Liu et al. 2024) of transformers' classes: a CLIP tower, a two-layer projector, and a
LLaMA-architecture language model with the patches in its sequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attention_atlas.models.vlm.clip_tower import put_stem
from attention_atlas.models.vlm.packed import packed_loss


class StandardisedLinear(nn.Linear):
    """A linear map of (x - mean) / deviation, with constant `mean` and `deviation` (inside,)."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(inside, outside)
        self.register_buffer("mean", torch.zeros(inside))
        self.register_buffer("deviation", torch.ones(inside))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x - self.mean) / self.deviation)


class Llava(nn.Module):
    """`model`: LlavaForConditionalGeneration on the tower's second-to-last layer, without its class token.

    vision, text: arguments (sizes) of the tower and the language model. stem: channels of the convolutions
    before the patches of a CLIP tower. image_token_id: id replaced by the patches. blind: omit the image,
    in training too.
    """

    instruction_aware = False

    def __init__(
        self,
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        image_token_id: int,
        stem: Sequence[int] = (),
        template: str = "USER: <image> {prompt} ASSISTANT:",
        blind: bool = False,
    ) -> None:
        super().__init__()
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        from attention_atlas.models.vlm.vit_tower import PooledDinov2, is_vit, vit_config

        tower: Any = vit_config(vision) if is_vit(vision) else CLIPVisionConfig(**vision)
        config = LlavaConfig(
            vision_config=tower,
            text_config=LlamaConfig(**text),
            image_token_index=image_token_id,
            image_seq_length=(vision["image_size"] // vision["patch_size"] // vision.get("pool", 1)) ** 2,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            tie_word_embeddings=bool(text.get("tie_word_embeddings", False)),
        )
        self.model = LlavaForConditionalGeneration(config)
        if is_vit(vision):
            self.model.model.vision_tower = PooledDinov2(tower)
        else:
            put_stem(self.vision, tower, stem)
        # In place of the plain map; see `standardise`.
        self.projector.linear_1 = StandardisedLinear(vision["hidden_size"], text["hidden_size"])
        # transformers' 0.02 is meant for thousands of units.
        for module in self.projector.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
        self.template, self.blind, self.image_token_id = template, blind, image_token_id
        self.image_tokens = 0 if blind else config.image_seq_length
        self.image_size = int(vision["image_size"])

    @property
    def vision(self) -> Any:
        return self.model.model.vision_tower

    @property
    def projector(self) -> Any:
        return self.model.model.multi_modal_projector

    @property
    def language_model(self) -> Any:
        """The stack of decoder layers."""
        return self.model.model.language_model

    @property
    def head(self) -> Any:
        return self.model.lm_head

    def start(self, tower: Any, text: Any) -> None:
        """Load the weights of a CLIPVisionModel or PooledDinov2 and a LlamaForCausalLM; freeze the tower."""
        self.vision.load_state_dict(tower.state_dict())
        self.language_model.load_state_dict(text.model.state_dict())
        self.head.load_state_dict(text.lm_head.state_dict())
        self.vision.requires_grad_(False)

    @torch.no_grad()
    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """(B,patches,D) input of the projector; computed once, because the tower is frozen."""
        return self.vision(pixel_values=pixels_BCHW, output_hidden_states=True).hidden_states[-2][:, 1:]

    @torch.no_grad()
    def standardise(self, features_BPD: Tensor) -> None:
        """Let the projector standardise its input by these features, per unit over images and places, and
        start with outputs as long as word embeddings. Most of a small tower's output is the same everywhere,
        and visual tokens much longer than words hardly change from layer to layer."""
        first, last = self.projector.linear_1, self.projector.linear_2
        first.mean.copy_(features_BPD.mean((0, 1)))
        first.deviation.copy_(features_BPD.std((0, 1)).clamp(min=1e-6))
        last.bias.zero_()
        length = self.projector(features_BPD).norm(dim=-1).mean()
        last.weight.mul_(self.language_model.embed_tokens.weight.norm(dim=-1).mean() / length)

    def project(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.projector(batch["features"])

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy per counted token of a packed batch, nats."""
        return packed_loss(self, batch, None if self.blind else self.project(batch))
