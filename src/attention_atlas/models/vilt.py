"""ViLT for visual question answering (Kim et al. 2021), based on transformers' model.

Optional differences from transformers' class: patches return to raster order after the embedding, which
samples them randomly; a small stack of convolutions before the patch projection helps to learn from few
images (Xiao et al. 2021); if scenes are annotated, heads on the patches predict what a patch shows and
whether the question is about it. Patches are a set to the encoder, so their order does not change the output.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.errors import AtlasError, ConfigError, loading
from attention_atlas.language.vocabulary import PAD

Batch = dict[str, Tensor]


class ConvolutionalPatches(nn.Module):
    """Replaces transformers' patch embedding: 3 × 3 convolutions with stride 2, then the projection to one
    vector per patch. With empty `channels` only the projection, as published."""

    def __init__(self, config: Any, channels: Sequence[int]) -> None:
        super().__init__()
        rest, inside = config.patch_size, config.num_channels
        layers: list[nn.Module] = []
        for outside in channels:
            if rest % 2:
                raise ConfigError(
                    f"ConvolutionalPatches: channels: {len(channels)} layers halve a patch of "
                    f"{config.patch_size} pixels too often; shorten the list or enlarge patch_size"
                )
            layers += [nn.Conv2d(inside, outside, 3, 2, 1), nn.GroupNorm(1, outside), nn.ReLU(inplace=True)]
            inside, rest = outside, rest // 2
        # Channels last is faster on a CPU.
        self.stem = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.projection = nn.Conv2d(inside, config.hidden_size, rest, rest)
        self.num_patches = (config.image_size // config.patch_size) ** 2

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        return self.projection(self.stem(pixels_BCHW.contiguous(memory_format=torch.channels_last)))


def sinusoids_2d(rows: int, columns: int, dim: int) -> Tensor:
    """Fixed position embeddings (rows · columns, dim): half of the units for the row, half for the column."""
    from attention_atlas.models.transformer import sinusoids

    half = dim // 2
    down, across = 8 * sinusoids(rows, half), 8 * sinusoids(columns, dim - half)
    grid = torch.cat(
        [down[:, None].expand(rows, columns, half), across[None].expand(rows, columns, dim - half)], -1
    )
    return grid.flatten(0, 1) / 8


class Vilt(nn.Module):
    """forward(batch) -> answer scores (B,A). A batch: `ids_BT` (CLS words SEP PAD...), `pixels_BCHW` within
    -1..1, optional `pixel_mask_BHW` (1 for pixels, 0 for padding), optional `image_B`: index of each
    question's image, if questions share images.

    stem: channels of the convolutions before the projection. blind: omit the image (a question-only model:
    text and the image's class token). pretrained: hub id or folder of a ViLT checkpoint, which sets sizes
    and vocabulary. patch_words: number of words (labels, colours) of the auxiliary head on the patches, 0
    without scene annotation; patch_depth: depth of the auxiliary heads' input as a fraction of the layers (1:
    the last).
    """

    def __init__(
        self,
        *,
        answers: int,
        vocab_size: int | None = None,
        patch_words: int = 0,
        patch_depth: float = 1.0,
        layers: int = 12,
        heads: int = 4,
        dim: int = 64,
        inner: int = 128,
        image_size: int = 144,
        patch_size: int = 16,
        max_text: int = 40,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        initial_std: float = 0.02,
        stem: Sequence[int] = (),
        blind: bool = False,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        from transformers import ViltConfig, ViltModel

        if dim % heads:
            raise ConfigError(f"Vilt: heads: {heads} do not divide dim {dim}; change one of them")
        self.blind, self.has_stem = blind, bool(stem)
        if pretrained:
            self.vilt = _pretrained(pretrained)
        elif vocab_size is None:
            raise ConfigError("Vilt: vocab_size: is missing; give the vocabulary's size or `pretrained`")
        else:
            config = ViltConfig(
                vocab_size=vocab_size,
                hidden_size=dim,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                intermediate_size=inner,
                image_size=image_size,
                patch_size=patch_size,
                max_position_embeddings=max_text,
                hidden_dropout_prob=dropout,
                attention_probs_dropout_prob=attention_dropout,
                initializer_range=initial_std,
                layer_norm_eps=1e-6,
                max_image_length=-1,
            )
            self.vilt = ViltModel(config)
            side = image_size // patch_size
            if stem:
                self.vilt.embeddings.patch_embeddings = ConvolutionalPatches(config, list(stem))
            places = torch.cat([torch.zeros(1, dim), sinusoids_2d(side, side, dim)])
            self.vilt.embeddings.position_embeddings.data.copy_(places[None])
        for index, layer in enumerate(self.vilt.encoder.layer):
            attention = layer.attention.attention
            attention.attention_kind, attention.layer_index = "joint", index
        width = self.vilt.config.hidden_size
        # As in transformers' ViltForQuestionAnswering.
        self.answer = nn.Sequential(
            nn.Linear(width, 2 * width), nn.LayerNorm(2 * width), nn.GELU(), nn.Linear(2 * width, answers)
        )
        if not 0 < patch_depth <= 1:
            raise ConfigError(f"Vilt: patch_depth: {patch_depth} is not a fraction of the layers above 0")
        self.patch_layer = max(1, round(patch_depth * len(self.attention_modules)))
        self.patch_norm = nn.LayerNorm(width) if patch_words else None
        self.patch_words = nn.Linear(width, patch_words) if patch_words else None
        self.patch_asked = nn.Linear(width, 1) if patch_words else None

    @property
    def attention_modules(self) -> list[nn.Module]:
        """The attention of each layer, first to last."""
        return [layer.attention.attention for layer in self.vilt.encoder.layer]

    def embed(self, batch: Batch) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Embedded sequence (B,S,D) [text | image's CLS | patches in raster order], bool mask (B,S) and the
        grid's rows and columns. Padded patches are last and masked."""
        ids_BT = batch["ids_BT"]
        longest = self.vilt.config.max_position_embeddings
        if ids_BT.shape[1] > longest:
            raise AtlasError(
                f"ViLT: a question has {ids_BT.shape[1]} tokens, the maximum is {longest}; truncate it"
            )
        text_mask_BT = ids_BT != PAD
        pixels = batch["pixels_BCHW"]
        embeddings = self.vilt.embeddings
        text_BTD = embeddings.text_embeddings(ids_BT)
        if self.blind:
            image_BPD = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(
                len(ids_BT), -1, -1
            )
            image_mask_BP, shape = text_mask_BT.new_ones(len(ids_BT), 1), (0, 0)
        else:
            pixel_mask = batch.get("pixel_mask_BHW")
            if pixel_mask is None:
                pixel_mask = torch.ones_like(pixels[:, 0])
            elif self.has_stem and not bool(pixel_mask.all()):
                raise AtlasError(
                    "ViLT: stem: requires images of one size, as it would see their padding; set it to []"
                )
            image_BPD, mask, (index_BP2, shape) = embeddings.visual_embed(pixels, pixel_mask, -1)
            image_BPD, image_mask_BP = in_raster_order(image_BPD, mask.bool(), index_BP2, int(shape[1]))
            if "image_B" in batch:
                image_B = batch["image_B"]
                image_BPD, image_mask_BP = image_BPD[image_B], image_mask_BP[image_B]
        kinds = embeddings.token_type_embeddings.weight
        sequence = torch.cat([text_BTD + kinds[0], image_BPD + kinds[1]], 1)
        return sequence, torch.cat([text_mask_BT, image_mask_BP], 1), (int(shape[0]), int(shape[1]))

    def encode(self, batch: Batch) -> Tensor:
        """Last hidden states (B,S,D) after the final norm."""
        x_BSD, mask_BS, _ = self.embed(batch)
        return self.run_layers(x_BSD, mask_BS)

    def run_layer(self, x_BSD: Tensor, mask_BS: Tensor, layer: int) -> Tensor:
        """A single layer, without the final norm."""
        return self.vilt.encoder.layer[layer](x_BSD, additive_mask(mask_BS, x_BSD.dtype))[0]

    def run_layers(self, x_BSD: Tensor, mask_BS: Tensor, first: int = 0) -> Tensor:
        """Layers `first` to the last and the final norm; x is the input of layer `first`."""
        additive = additive_mask(mask_BS, x_BSD.dtype)
        for layer in self.vilt.encoder.layer[first:]:
            x_BSD = layer(x_BSD, additive)[0]
        return self.vilt.layernorm(x_BSD)

    def score(self, hidden_BSD: Tensor) -> Tensor:
        return self.answer(self.vilt.pooler(hidden_BSD))

    def forward(self, batch: Batch, weights: tuple[float, float] | None = None) -> Any:
        """Scores (B,A); with `weights` (of the losses on patches) the losses."""
        if weights is not None:
            return self.losses(batch, *weights)
        return self.score(self.encode(batch))

    def losses(self, batch: Batch, patch_weight: float = 0.0, asked_weight: float = 0.0) -> dict[str, Tensor]:
        """`answer`: binary cross-entropy summed over the answers, mean over questions (as in ViLT).

        If the batch has `shown_BPW` and `asked_BP` (0/1, -1 unknown): `shown`, the same for the words that
        are true of a patch, and `asked`, for whether the question is about it; both weighted, mean over
        patches.
        """
        x_BSD, mask_BS, _ = self.embed(batch)
        for layer in range(self.patch_layer):
            x_BSD = self.run_layer(x_BSD, mask_BS, layer)
        hidden = self.run_layers(x_BSD, mask_BS, self.patch_layer)
        target_BA = batch["target_BA"]
        scores = self.score(hidden)
        found = {"answer": F.binary_cross_entropy_with_logits(scores, target_BA) * target_BA.shape[1]}
        if "shown_BPW" not in batch:
            return found
        if self.patch_words is None or self.patch_asked is None or self.patch_norm is None:
            return found
        shown_BPW, asked_BP = batch["shown_BPW"], batch["asked_BP"]
        patches = self.patch_norm(x_BSD[:, -shown_BPW.shape[1] :])
        if patch_weight:
            there = shown_BPW >= 0
            logits, wanted = self.patch_words(patches)[there], shown_BPW[there]
            loss = F.binary_cross_entropy_with_logits(logits, wanted) * shown_BPW.shape[2]
            found["shown"] = patch_weight * loss
        known = asked_BP >= 0
        if asked_weight and bool(known.any()):
            logits = self.patch_asked(patches)[..., 0]
            loss = F.binary_cross_entropy_with_logits(logits[known], asked_BP[known].float())
            found["asked"] = asked_weight * loss
        return found


def additive_mask(mask_BS: Tensor, dtype: torch.dtype) -> Tensor | None:
    """(B,1,1,S): 0 for visible keys, the type's lowest number for others; None if all are visible."""
    if bool(mask_BS.all()):
        return None
    lowest = torch.finfo(dtype).min
    return torch.zeros_like(mask_BS, dtype=dtype).masked_fill(~mask_BS, lowest)[:, None, None]


def in_raster_order(
    image_BPD: Tensor, mask_BP: Tensor, index_BP2: Tensor, columns: int
) -> tuple[Tensor, Tensor]:
    """[CLS | patches], the patches sorted by row and column, padding last. `index_BP2` excludes CLS."""
    place = index_BP2[..., 0] * columns + index_BP2[..., 1]
    place = place.masked_fill(~mask_BP[:, 1:], int(place.max()) + 1)
    order = torch.argsort(place, dim=1, stable=True)
    order = torch.cat([torch.zeros_like(order[:, :1]), order + 1], 1)
    image = image_BPD.gather(1, order[..., None].expand(-1, -1, image_BPD.shape[-1]))
    return image, mask_BP.gather(1, order)


def _pretrained(where: str) -> Any:
    from transformers import ViltModel

    with loading(f"Vilt: pretrained: '{where}'"):
        return ViltModel.from_pretrained(where)
