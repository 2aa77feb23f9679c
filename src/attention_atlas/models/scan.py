"""SCAN, text to image, averaged (Lee et al. 2018): similarity from each word's attention over regions.

score(word, region) → LeakyReLU(0.1) → divided by its l2 norm over the words → × 9 → softmax over regions
gives each word a mixture of regions; a caption's similarity to an image is the mean cosine between its words
and their mixtures. All pairs of images and captions are compared without forming the mixtures: with a the
weights, V the regions and w a word, w·(aV) = Σ_n a_n w·v_n and |aV|² = a (V Vᵀ) aᵀ.

Axes: B pairs, I images, C captions, T words (BOS and EOS among them, as published), N regions, D units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.alignments.base import Alignment
from attention_atlas.alignments.build import build_alignment
from attention_atlas.capture.seam import attend
from attention_atlas.language.vocabulary import PAD

Batch = dict[str, Tensor]
EPSILON = 1e-8


class Scan(nn.Module):
    """forward(batch) -> similarity (B,) of each caption and its own image; `similarities` compares all pairs.

    A batch: `ids_BT` (BOS, words, EOS, PAD...), `features_BND`, `regions_BN` bool. alignment: an alignment or
    its configuration; layout `published` permutes the weights as the published variants do. smooth: the 9.
    """

    feature_mean_D: Tensor
    feature_scale_D: Tensor
    attention_kind = "cross"
    layer_index = 0

    def __init__(
        self,
        vocab_size: int,
        feature_dim: int,
        alignment: Mapping[str, Any] | Alignment | None = None,
        dim: int = 1024,
        embedding: int = 300,
        smooth: float = 9.0,
        slope: float = 0.1,
        embedding_init: float = 0.1,
    ) -> None:
        super().__init__()
        self.smooth, self.slope = smooth, slope
        self.alignment = build_alignment(alignment, dim)
        self.region = nn.Linear(feature_dim, dim)
        self.embed = nn.Embedding(vocab_size, embedding, padding_idx=PAD)
        self.gru = nn.GRU(embedding, dim, batch_first=True, bidirectional=True)
        nn.init.uniform_(self.embed.weight, -embedding_init, embedding_init)
        nn.init.xavier_uniform_(self.region.weight)
        nn.init.zeros_(self.region.bias)
        self.register_buffer("feature_mean_D", torch.zeros(feature_dim))
        self.register_buffer("feature_scale_D", torch.ones(feature_dim))
        with torch.no_grad():
            self.embed.weight[PAD] = 0

    def encode_images(self, features_IND: Tensor) -> Tensor:
        """Regions (I,N,D) of length 1."""
        features_IND = (features_IND - self.feature_mean_D) * self.feature_scale_D
        return F.normalize(self.region(features_IND), dim=-1, eps=EPSILON)

    def standardise(self, mean_D: Tensor, std_D: Tensor) -> None:
        """Standardise features before the first layer, because non-negative features make all regions
        similar. Saved with the weights. Without this call features are used unchanged, as published."""
        self.feature_mean_D.copy_(mean_D)
        self.feature_scale_D.copy_(1 / std_D.clamp(min=1e-3))

    def encode_captions(self, ids_CT: Tensor) -> Tensor:
        """Words (C,T,D) of length 1, both directions of the GRU averaged; padding is 0."""
        from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

        lengths = (ids_CT != PAD).sum(1).cpu()
        packed = pack_padded_sequence(self.embed(ids_CT), lengths, batch_first=True, enforce_sorted=False)
        both, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=ids_CT.shape[1])
        forth, back = both.chunk(2, -1)
        return F.normalize((forth + back) / 2, dim=-1, eps=EPSILON)

    def soften(self, score_CTXN: Tensor, words_CT: Tensor, regions_CTXN: Tensor | None) -> Tensor:
        """From raw scores (C,T,X,N), X images per caption, to the input of the softmax over regions.

        words_CT: bool, False for padding; regions_CTXN: bool, broadcastable, None if all are real; −inf where
        False. With the published layout's swap each caption is processed with its own number of words, as in
        the published code.
        """
        score = F.leaky_relu(score_CTXN, self.slope)
        if self.alignment.swaps_axes("scan"):
            if regions_CTXN is not None:
                score = score * regions_CTXN
            score = self._scrambled(score, words_CT) * self.smooth
        else:
            captions, words, images, regions = score.shape
            # Σ over the real words only, as one product.
            square_CX = words_CT[:, None].to(score.dtype) @ (score * score).view(captions, words, -1)
            norm_CXN = _root(square_CX).view(captions, 1, images, regions)
            score = score * (self.smooth / (norm_CXN + EPSILON))
        return score if regions_CTXN is None else score.masked_fill(~regions_CTXN, float("-inf"))

    def _scrambled(self, score_CTXN: Tensor, words_CT: Tensor) -> Tensor:
        """The published code confuses (word, region) with (region, word): the norm is over regions, and each
        supposed row of regions is a piece of the flattened transposed matrix."""
        score = score_CTXN / (_root((score_CTXN * score_CTXN).sum(-1, keepdim=True)) + EPSILON)
        longest, images, regions = score.shape[1:]
        rows = []
        for score_TXN, length in zip(score, words_CT.sum(1).tolist()):
            flat_XNT = score_TXN[:length].permute(1, 2, 0)
            again_XTN = flat_XNT.reshape(images, length, regions)
            rows.append(F.pad(again_XTN.transpose(0, 1), (0, 0, 0, 0, 0, longest - length)))
        return torch.stack(rows)

    def forward(self, batch: Batch) -> Tensor:
        """Similarity (B,) of caption b and image b; the attention uses the seam, so it can be captured."""
        words_BTD, words_BT = self.encode_captions(batch["ids_BT"]), batch["ids_BT"] != PAD
        regions_BND, regions_BN = self.encode_images(batch["features_BND"]), batch["regions_BN"]
        score_BTN = self._own_scores(words_BTD, words_BT, regions_BND, regions_BN)
        # The score depends on all words of a caption, so it is passed to the seam as a bias on a score of 0.
        nothing_B1T1 = words_BTD.new_zeros(*words_BT.shape, 1)[:, None]
        mixed_BTD = attend(
            self,
            nothing_B1T1,
            regions_BND.new_zeros(*regions_BN.shape, 1)[:, None],
            regions_BND[:, None],
            mask=regions_BN[:, None, None],
            bias=score_BTN.masked_fill(~regions_BN[:, None], 0.0)[:, None],
        )[:, 0]
        lengths_BT = words_BTD.norm(dim=-1) * mixed_BTD.norm(dim=-1)
        cosine_BT = (words_BTD * mixed_BTD).sum(-1) / lengths_BT.clamp(min=EPSILON)
        return _mean(cosine_BT, words_BT)

    def _own_scores(
        self, words_BTD: Tensor, words_BT: Tensor, regions_BND: Tensor, regions_BN: Tensor
    ) -> Tensor:
        score_BTN = self.alignment.score(words_BTD, regions_BND)
        return self.soften(score_BTN[:, :, None], words_BT, regions_BN[:, None, None])[:, :, 0]

    def weights(self, batch: Batch) -> Tensor:
        """Attention (B,T,N) of each caption's words over the regions of its own image; padding is 0."""
        words_BT, regions_BN = batch["ids_BT"] != PAD, batch["regions_BN"]
        words_BTD, regions_BND = (
            self.encode_captions(batch["ids_BT"]),
            self.encode_images(batch["features_BND"]),
        )
        score_BTN = self._own_scores(words_BTD, words_BT, regions_BND, regions_BN)
        return score_BTN.softmax(-1) * words_BT[..., None]

    def similarities(
        self, regions_IND: Tensor, regions_IN: Tensor, words_CTD: Tensor, words_CT: Tensor
    ) -> Tensor:
        """All pairs: encoded regions and words -> (I,C). Memory: a few times I·C·T·N numbers."""
        (images, regions), (captions, words) = regions_IN.shape, words_CT.shape
        shape = (captions, words, images, regions)
        queries, keys = words_CTD.flatten(0, 1), regions_IND.flatten(0, 1)
        score_CTIN = self.alignment.score(queries, keys).view(shape)
        real = None if bool(regions_IN.all()) else regions_IN[None, None]
        weights_CTIN = self.soften(score_CTIN, words_CT, real).softmax(-1)
        along_CTI = (weights_CTIN * (queries @ keys.T).view(shape)).sum(-1)
        gram_INN = regions_IND @ regions_IND.transpose(1, 2)
        by_image = weights_CTIN.view(-1, images, regions).transpose(0, 1)
        square_IX = (torch.bmm(by_image, gram_INN) * by_image).sum(-1)
        length_CTI = _root(square_IX.T).view_as(along_CTI) * words_CTD.norm(dim=-1)[..., None]
        cosine_CTI = along_CTI / length_CTI.clamp(min=EPSILON)
        return _mean(cosine_CTI.transpose(1, 2), words_CT[:, None]).T


def _root(square: Tensor) -> Tensor:
    """Square root whose gradient at 0 is 0."""
    return torch.where(square > 0, square.clamp(min=1e-30).sqrt(), torch.zeros_like(square))


def _mean(value_XT: Tensor, words_XT: Tensor) -> Tensor:
    """Mean over the words, without padding."""
    return (value_XT * words_XT).sum(-1) / words_XT.sum(-1)
