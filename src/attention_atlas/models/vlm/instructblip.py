"""A small InstructBLIP (Dai et al. 2023) of transformers' classes: the tower, a Q-Former whose queries read
the image given the instruction, and a LLaMA-architecture language model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError
from attention_atlas.models.vlm.clip_tower import put_stem
from attention_atlas.models.vlm.packed import packed_loss

ALIKE = 20.0  # weight of `alikeness`: a short training otherwise makes all queries of an image equal


class PlacedPatches(nn.Module):
    """Replaces InstructBLIP's patch embedding by CLIP's patches, positions and pre-layer norm, which
    InstructBLIP's tower lacks: norm(patches + positions)."""

    def __init__(self, patches: nn.Module, dim: int, side: int) -> None:
        super().__init__()
        self.patches = patches
        self.places = nn.Parameter(torch.zeros(1, dim, side, side))
        self.norm = nn.LayerNorm(dim)

    @property
    def weight(self) -> Tensor:
        """transformers reads the type of a patch embedding's weights."""
        return self.norm.weight

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        placed = self.patches(pixels_BCHW) + self.places
        return self.norm(placed.movedim(1, -1)).movedim(-1, 1)


class InstructBlip(nn.Module):
    """`model`: InstructBlipForConditionalGeneration. vision: sizes of the CLIP tower, used without its last
    layer (LLaVA reads the same layer). Other arguments as in llava.Llava.

    queries, qformer_layers, qformer_heads, qformer_inner: sizes of the Q-Former; cross_every: every n-th
    layer, starting with the first, has cross-attention to the image.
    """

    instruction_aware = True

    def __init__(
        self,
        vision: Mapping[str, Any],
        text: Mapping[str, Any],
        image_token_id: int,
        stem: Sequence[int] = (),
        template: str = "USER: {prompt} ASSISTANT:",
        queries: int = 32,
        qformer_layers: int = 4,
        qformer_heads: int = 4,
        qformer_inner: int = 192,
        cross_every: int = 2,
        qformer_std: float = 0.1,
    ) -> None:
        super().__init__()
        from transformers import (
            InstructBlipConfig,
            InstructBlipForConditionalGeneration,
            InstructBlipQFormerConfig,
            InstructBlipVisionConfig,
            LlamaConfig,
        )

        if "model_type" in vision:
            raise ConfigError("InstructBlip: task.tower: its class needs a CLIP tower; name its run folder")
        sizes = {**vision, "num_hidden_layers": vision["num_hidden_layers"] - 1}
        dim, side = sizes["hidden_size"], sizes["image_size"] // sizes["patch_size"]
        qformer = InstructBlipQFormerConfig(
            vocab_size=text["vocab_size"],
            hidden_size=dim,
            num_hidden_layers=qformer_layers,
            num_attention_heads=qformer_heads,
            intermediate_size=qformer_inner,
            cross_attention_frequency=cross_every,
            encoder_hidden_size=dim,
            max_position_embeddings=128,
            initializer_range=qformer_std,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            pad_token_id=text["pad_token_id"],
        )
        config = InstructBlipConfig(
            vision_config=InstructBlipVisionConfig(**sizes, qkv_bias=True),
            qformer_config=qformer,
            text_config=LlamaConfig(**text),
            num_query_tokens=queries,
            image_token_index=image_token_id,
        )
        self.model = InstructBlipForConditionalGeneration(config)
        put_stem(self.vision, config.vision_config, stem)
        embeddings = self.vision.embeddings
        embeddings.patch_embedding = PlacedPatches(embeddings.patch_embedding, dim, side)
        # transformers initialises all queries with zero, so that 32 equal ones would have to diverge.
        nn.init.normal_(self.model.query_tokens)
        nn.init.xavier_uniform_(self.model.language_projection.weight)
        # Replaces BLIP-2's first stage, which trains the Q-Former on 129 million pairs; only in training.
        self.word_head = nn.Linear(dim, text["vocab_size"])
        self.template, self.image_token_id, self.image_tokens = template, image_token_id, queries
        self.blind = False
        self.image_size = int(vision["image_size"])

    @property
    def vision(self) -> Any:
        return self.model.vision_model

    @property
    def language_model(self) -> Any:
        return self.model.language_model.model

    @property
    def head(self) -> Any:
        return self.model.language_model.lm_head

    def start(self, tower: Any, text: Any) -> None:
        """Load the weights of a CLIPVisionModel and a LlamaForCausalLM, and freeze the tower."""
        take_clip(self.vision, tower)
        self.model.language_model.load_state_dict(text.state_dict())
        self.vision.requires_grad_(False)

    @torch.no_grad()
    def features(self, pixels_BCHW: Tensor) -> Tensor:
        """(B,1+patches,D) input of the Q-Former; computed once, because the tower is frozen."""
        return self.vision(pixel_values=pixels_BCHW).last_hidden_state

    @torch.no_grad()
    def standardise(self, features_BPD: Tensor) -> None:
        """Standardise the tower's output by these features, per unit over images and places, and start with
        visual tokens as long as word embeddings; see `Llava.standardise`."""
        norm = self.vision.post_layernorm
        deviation_D = features_BPD[:, 1:].std((0, 1)).clamp(min=1e-6)
        norm.bias.sub_(features_BPD[:, 1:].mean((0, 1))).div_(deviation_D)
        norm.weight.div_(deviation_D)
        # The Q-Former ends with a norm, so its output has the length of a vector of ones.
        last, width = self.model.language_projection, self.model.query_tokens.shape[-1]
        length = torch.linalg.matrix_norm(last.weight) / last.weight.shape[1] ** 0.5 * width**0.5
        last.weight.mul_(self.language_model.embed_tokens.weight.norm(dim=-1).mean() / length)
        last.bias.zero_()

    def query(self, batch: Mapping[str, Tensor]) -> Tensor:
        """(B,queries,D) output of the Q-Former."""
        features = batch["features"]
        queries = self.model.query_tokens.expand(len(features), -1, -1)
        ones = torch.ones(queries.shape[:2], dtype=torch.long, device=queries.device)
        return self.model.qformer(
            input_ids=batch["qformer_input_ids"],
            attention_mask=torch.cat([ones, batch["qformer_attention_mask"]], 1),
            query_embeds=queries,
            encoder_hidden_states=features,
        ).last_hidden_state[:, : queries.shape[1]]

    def project(self, batch: Mapping[str, Tensor]) -> Tensor:
        return self.model.language_projection(self.query(batch))

    def loss(self, batch: Mapping[str, Tensor], words_weight: float = 0.0) -> Tensor:
        """Mean cross-entropy per counted token of a packed batch, nats; with `words_BV` (0/1) and a weight
        also `words_cost`, and ALIKE times `alikeness`."""
        queries_BND = self.query(batch)
        loss = packed_loss(self, batch, self.model.language_projection(queries_BND))
        if words_weight and "words_BV" in batch:
            cost = self.words_cost(queries_BND, batch["words_BV"]) + ALIKE * alikeness(queries_BND)
            loss = loss + words_weight * cost
        return loss

    def words_cost(self, queries_BND: Tensor, words_BV: Tensor) -> Tensor:
        """Binary cross-entropy of the words in an image's texts, summed over words. A word's logit is the
        smooth maximum over queries: one query that sees its thing is enough."""
        logits_BV = self.word_head(queries_BND).logsumexp(1) - math.log(queries_BND.shape[1])
        return F.binary_cross_entropy_with_logits(logits_BV, words_BV) * words_BV.shape[1]

    @torch.no_grad()
    def expect_words(self, share_V: Tensor) -> None:
        """Initialise the bias of the head on words with the words' frequencies."""
        self.word_head.bias.copy_(torch.logit(share_V.clamp(1e-4, 0.9)))

    @torch.no_grad()
    def place_queries(self, mean_PD: Tensor, sharpness: float = 4.0) -> None:
        """Initialise query i with the mean feature at the i-th of as many evenly spaced positions, and let
        queries attend to similar keys, so that each reads another part of the image from the first step on.
        mean_PD: `features` averaged over images, class token first."""
        places_PD = mean_PD[1:]
        count = self.model.query_tokens.shape[1]
        chosen = torch.linspace(0, len(places_PD) - 1, count).round().long()
        query_ND = places_PD[chosen] - places_PD.mean(0)
        self.model.query_tokens.copy_(query_ND / query_ND.std().clamp(min=1e-6))
        for layer in self.model.qformer.encoder.layer:
            if layer.has_cross_attention:
                attention = layer.crossattention.attention
                # The Q-Former is as wide as the tower here, so both can share one map.
                attention.key.weight.copy_(attention.query.weight)
                attention.query.weight.mul_(sharpness)


def alikeness(queries_BND: Tensor) -> Tensor:
    """Mean squared cosine between two queries of an image."""
    unit_BND = F.normalize(queries_BND, dim=-1)
    count = unit_BND.shape[1]
    cosine_BNN = unit_BND @ unit_BND.mT
    return (cosine_BNN.square().sum((1, 2)).mean() - count) / (count * (count - 1))


@torch.no_grad()
def take_clip(vision: Any, clip: Any) -> None:
    """Load the weights of a CLIPVisionModel into an InstructBlipVisionModel (one layer less, with
    PlacedPatches), whose output is then that of CLIP's second-to-last layer after a norm without weights.
    Exact (tested)."""
    from_, to = clip.embeddings, vision.embeddings
    patch = to.patch_embedding
    weights = from_.patch_embedding.state_dict()
    if "bias" in patch.patches.state_dict() and "bias" not in weights:
        weights["bias"] = torch.zeros_like(patch.patches.bias)  # CLIP's plain patches have none
    patch.patches.load_state_dict(weights)
    places_PD = from_.position_embedding.weight
    patch.places.copy_(places_PD[1:].T.reshape(patch.places.shape))
    patch.norm.load_state_dict(clip.pre_layrnorm.state_dict())
    to.position_embedding.zero_()
    to.class_embedding.copy_(clip.pre_layrnorm(from_.class_embedding + places_PD[0]).view(1, 1, -1))
    for mine, theirs in zip(vision.encoder.layers, clip.encoder.layers):
        attention, clips = mine.self_attn, theirs.self_attn
        parts = (clips.q_proj, clips.k_proj, clips.v_proj)
        attention.qkv.weight.copy_(torch.cat([p.weight for p in parts]))
        attention.qkv.bias.copy_(torch.cat([p.bias for p in parts]))
        attention.projection.load_state_dict(clips.out_proj.state_dict())
        mine.layer_norm1.load_state_dict(theirs.layer_norm1.state_dict())
        mine.layer_norm2.load_state_dict(theirs.layer_norm2.state_dict())
        mine.mlp.load_state_dict(theirs.mlp.state_dict())
    vision.post_layernorm.weight.fill_(1.0)
    vision.post_layernorm.bias.zero_()
