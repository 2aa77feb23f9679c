"""A small CLIP of transformers' class (Radford et al. 2021): the vision tower of the vision LLMs trained
here.

Two differences, both because there are only thousands of training images instead of four hundred million:
optional convolutions before the patch projection (as in models/vilt.py), and a head that predicts what a
patch shows if scenes are annotated. The head reads the second-to-last layer, as LLaVA does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import ConfigError
from attention_atlas.models.vilt import ConvolutionalPatches, sinusoids_2d

BOS_ID, EOS_ID, PAD_ID = 1, 3, 0


class Stem(ConvolutionalPatches):
    """Replaces CLIP's patch embedding, including the type of its weights, which transformers reads."""

    @property
    def weight(self) -> Tensor:
        return self.projection.weight


def vision_config(
    layers: int, heads: int, dim: int, inner: int, image_size: int, patch_size: int
) -> dict[str, Any]:
    """Sizes of the tower, for both vision LLMs."""
    if dim % heads:
        raise ConfigError(f"vision_config: heads: {heads} do not divide dim {dim}; change one of them")
    if image_size % patch_size:
        raise ConfigError(
            f"vision_config: patch_size: {patch_size} does not divide image_size {image_size}; change one"
        )
    if layers < 2:
        raise ConfigError(f"vision_config: layers: {layers}; LLaVA reads the second-to-last, use at least 2")
    return {
        "hidden_size": dim,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "image_size": image_size,
        "patch_size": patch_size,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
    }


def clip_vision(sizes: dict[str, Any], stem: Sequence[int]) -> Any:
    """transformers' CLIPVisionModel, with the stem if any."""
    from transformers import CLIPVisionConfig, CLIPVisionModel

    config = CLIPVisionConfig(**sizes)
    model = CLIPVisionModel(config)
    put_stem(model, config, stem)
    return model


def put_stem(vision: Any, config: Any, stem: Sequence[int]) -> None:
    """Convolutions before the patches of a CLIP or InstructBLIP tower (whose settings name no channels)."""
    from types import SimpleNamespace

    if stem:
        names = ("image_size", "patch_size", "hidden_size")
        sizes = SimpleNamespace(num_channels=3, **{name: getattr(config, name) for name in names})
        vision.embeddings.patch_embedding = Stem(sizes, list(stem))


class ClipTower(nn.Module):
    """forward(pixels (B,3,h,w), ids (B,T)) -> (image (B,P), text (B,P)) unit vectors of P units.

    pieces: size of the text vocabulary. patch_words: number of words (labels, attributes) that the head on
    the patches predicts, 0 without annotated scenes. Texts end with EOS and are padded at the right.
    """

    def __init__(
        self,
        pieces: int,
        patch_words: int = 0,
        layers: int = 6,
        heads: int = 4,
        dim: int = 96,
        inner: int = 192,
        image_size: int = 144,
        patch_size: int = 24,
        stem: Sequence[int] = (),
        text_layers: int = 2,
        max_text: int = 32,
        projection: int = 96,
    ) -> None:
        super().__init__()
        from transformers import CLIPConfig, CLIPModel

        self.sizes = vision_config(layers, heads, dim, inner, image_size, patch_size)
        self.stem = list(stem)
        text = {
            "vocab_size": pieces,
            "hidden_size": dim,
            "intermediate_size": inner,
            "num_hidden_layers": text_layers,
            "num_attention_heads": heads,
            "max_position_embeddings": max_text,
            "hidden_act": "gelu",
            "bos_token_id": BOS_ID,
            "eos_token_id": EOS_ID,
            "pad_token_id": PAD_ID,
        }
        config = CLIPConfig(text_config=text, vision_config=self.sizes, projection_dim=projection)
        self.clip = CLIPModel(config)
        put_stem(self.clip.vision_model, config.vision_config, self.stem)
        side = image_size // patch_size
        # Much smaller than a fresh patch embedding, which positions would otherwise drown out.
        places = torch.cat([torch.zeros(1, dim), 0.15 * sinusoids_2d(side, side, dim)])
        self.clip.vision_model.embeddings.position_embedding.weight.data.copy_(places)
        self.patch_norm = nn.LayerNorm(dim) if patch_words else None
        self.patch_words = nn.Linear(dim, patch_words) if patch_words else None

    @property
    def vision(self) -> Any:
        """The CLIPVisionModel."""
        return self.clip.vision_model

    def see(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(image's unit vector (B,P), hidden states (B,1+patches,D) of the second-to-last layer)."""
        out = self.vision(pixel_values=pixels_BCHW, output_hidden_states=True)
        image = self.clip.visual_projection(out.pooler_output)
        return F.normalize(image, dim=-1), out.hidden_states[-2]

    def read(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        out = self.clip.text_model(input_ids=ids_BT, attention_mask=mask_BT)
        return F.normalize(self.clip.text_projection(out.pooler_output), dim=-1)

    def forward(self, pixels_BCHW: Tensor, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        return self.see(pixels_BCHW)[0], self.read(ids_BT, mask_BT)

    def losses(self, batch: dict[str, Tensor], patch_weight: float = 0.0) -> dict[str, Tensor]:
        """`contrastive`: mean of both directions' cross-entropy over the batch (CLIP, Fig. 3); `shown`:
        binary cross-entropy of the words true of each patch, summed over words, mean over patches, weighted,
        where the batch has `shown_BPW` (0/1, -1 unknown)."""
        image_BP, hidden_BSD = self.see(batch["pixels_BCHW"])
        text_BP = self.read(batch["ids_BT"], batch["mask_BT"])
        scores_BB = self.clip.logit_scale.exp().clamp(max=100.0) * image_BP @ text_BP.T
        right_B = torch.arange(len(scores_BB), device=scores_BB.device)
        both = F.cross_entropy(scores_BB, right_B) + F.cross_entropy(scores_BB.T, right_B)
        found = {"contrastive": both / 2}
        if patch_weight and self.patch_words is not None and "shown_BPW" in batch:
            shown_BPW = batch["shown_BPW"]
            known = shown_BPW[..., 0] >= 0
            if bool(known.any()):
                logits = self.tell(hidden_BSD)[known]
                loss = F.binary_cross_entropy_with_logits(logits, shown_BPW[known]) * shown_BPW.shape[2]
                found["shown"] = patch_weight * loss
        return found

    @torch.no_grad()
    def expect_words(self, share_W: Tensor) -> None:
        """Initialise the bias of the head on patches with the words' frequencies."""
        if self.patch_words is not None:
            self.patch_words.bias.copy_(torch.logit(share_W.clamp(1e-4, 0.9)))

    def tell(self, hidden_BSD: Tensor) -> Tensor:
        """(B,patches,W) scores of the words, from the hidden states of `see`."""
        if self.patch_words is None or self.patch_norm is None:
            raise ConfigError("ClipTower: patch_weight: the model has no head on its patches; set it to 0")
        return self.patch_words(self.patch_norm(hidden_BSD[:, 1:]))
