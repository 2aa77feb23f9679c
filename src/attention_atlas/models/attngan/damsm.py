"""DAMSM, the deep attentional multimodal similarity model (Xu et al. 2018, section 3.2): word-level matching
of image and text.

Axes: B pairs, I images, C captions, T words, N regions, D units.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.capture.seam import attend
from attention_atlas.language.vocabulary import PAD
from attention_atlas.models.attngan.text import TextEncoder

Batch = dict[str, Tensor]
EPSILON = 1e-8


class Damsm(nn.Module):
    """forward(batch) -> word-level similarity (B,) of each image and its own caption.

    A batch: `ids_BT` (words, PAD...), `pixels_BCSS` in -1..1. image: configuration of the image encoder.
    gamma1 sharpens a word's attention over regions (eq. 9), gamma2 weights the best words of a caption (eq.
    10), gamma3 sharpens the softmax over the batch (eq. 11): 4 or 5, 5, 10 as published. The score of a word
    and a region is always their dot product, independently of the generator's alignment.
    """

    attention_kind = "cross"
    layer_index = 0

    def __init__(
        self,
        vocab_size: int,
        image: Mapping[str, Any] | nn.Module,
        dim: int = 256,
        embedding: int = 300,
        dropout: float = 0.5,
        embedding_init: float = 0.1,
        gamma1: float = 4.0,
        gamma2: float = 5.0,
        gamma3: float = 10.0,
    ) -> None:
        super().__init__()
        self.dim = dim
        self.gamma1, self.gamma2, self.gamma3 = gamma1, gamma2, gamma3
        self.text = TextEncoder(vocab_size, dim, embedding, dropout, embedding_init)
        if isinstance(image, nn.Module):
            self.image = image
        else:
            from hydra.utils import instantiate

            self.image = instantiate(image, dim=dim)

    def forward(self, batch: Batch) -> Tensor:
        words_BTD, _ = self.text(batch["ids_BT"])
        regions_BND, _ = self.image(batch["pixels_BCSS"])
        return self.word_scores(words_BTD[:, None], batch["ids_BT"] != PAD, regions_BND[:, None])[:, 0]

    def word_scores(self, words_CITD: Tensor, words_CT: Tensor, regions_CIND: Tensor) -> Tensor:
        """log Σ over words of exp(γ2 cos(word, its region context)) (eq. 10 without the outer 1/γ2, as in the
        published code), (C,I). words_CT: bool. The axis I of either may be 1.
        """
        raw_CITN = words_CITD @ regions_CIND.transpose(-1, -2)
        # First over the words of each region (eq. 8), so that regions without a best word get little weight.
        raw_CITN = raw_CITN.masked_fill(~words_CT[:, None, :, None], float("-inf"))
        claimed_CITN = raw_CITN.softmax(-2) * self.gamma1
        captions, images, words, regions = claimed_CITN.shape
        # The score depends on all words of a caption, so it is passed to the seam as a bias on a score of 0.
        seen_CITD = attend(
            self,
            claimed_CITN.new_zeros(captions, images, words, 1),
            claimed_CITN.new_zeros(captions, images, regions, 1),
            regions_CIND.expand(captions, images, regions, -1),
            bias=claimed_CITN,
        )
        cosine_CIT = F.cosine_similarity(words_CITD, seen_CITD, dim=-1, eps=EPSILON)
        cosine_CIT = cosine_CIT.masked_fill(~words_CT[:, None], float("-inf"))
        return (self.gamma2 * cosine_CIT).logsumexp(-1)

    def losses(
        self,
        regions_BND: Tensor,
        whole_BD: Tensor,
        words_BTD: Tensor,
        sentence_BD: Tensor,
        words_BT: Tensor,
        class_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(word loss, sentence loss): each the sum of -log P(own caption | image) and -log P(own image |
        caption) over the batch (eqs. 11 to 13). class_B: other pairs of the same class (bird species) are not
        negatives; None: each pair is its own class."""
        words_II = self.word_scores(words_BTD[:, None], words_BT, regions_BND[None])
        whole_II = (
            F.normalize(sentence_BD, dim=-1, eps=EPSILON) @ F.normalize(whole_BD, dim=-1, eps=EPSILON).T
        )
        same_BB = None
        if class_B is not None:
            same_BB = class_B[:, None] == class_B[None]
            same_BB = same_BB & ~torch.eye(len(class_B), dtype=torch.bool, device=class_B.device)
        # Rows are captions and columns images in both.
        return _both_ways(self.gamma3 * words_II, same_BB), _both_ways(self.gamma3 * whole_II, same_BB)


def _both_ways(score_BB: Tensor, same_BB: Tensor | None) -> Tensor:
    """Cross entropy of the diagonal along rows plus along columns."""
    if same_BB is not None:
        score_BB = score_BB.masked_fill(same_BB, float("-inf"))
    own_B = torch.arange(len(score_BB), device=score_BB.device)
    return F.cross_entropy(score_BB, own_B) + F.cross_entropy(score_BB.T, own_B)
