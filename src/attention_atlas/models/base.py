"""The interface of captioning models for the training loop, the search and the attention dump."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from attention_atlas.language.vocabulary import PAD

Batch = dict[str, Tensor]


def caption_loss(logits_BTV: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy per word in nats, over the words and the final EOS, without padding."""
    targets_BT = batch["ids_BT"][:, 1:]
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten(), ignore_index=PAD)


class CaptionModel(nn.Module, ABC):
    """Base class. Memory and state are nested tuples, lists and dicts of tensors, first axis the batch.

    A batch: `ids_BT` (BOS, words, EOS, PAD...), `features_BND` float, `boxes_BN4` relative x1,y1,x2,y2,
    `regions_BN` bool, True where there is a region.
    """

    # True for a model that also takes `image_B` (B,): text b is about row image_B[b] of the images, which are
    # then encoded once for several texts.
    shares_images = False

    @abstractmethod
    def forward(self, batch: Batch) -> Tensor:
        """Teacher-forced logits (B,T-1,V): row i, given BOS and words 1..i, scores word i+1."""

    def loss(self, batch: Batch) -> Tensor:
        return caption_loss(self(batch), batch)

    def fit(self, batch: Batch) -> None:
        """Adapt initial weights to the regions of training images. By default nothing is adapted."""

    @abstractmethod
    def encode(self, batch: Batch) -> Any:
        """The decoder's input from the image, computed once."""

    @abstractmethod
    def decode_step(self, memory: Any, ids_BT: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Logits (B,V) of the word after the prefix `ids_BT` (BOS first) and the state for the next step.

        With `state` from the step before, only the last column of `ids_BT` is computed.
        """


def xavier(model: nn.Module) -> None:
    """Xavier-uniform for every matrix, as in the published transformer code; vectors are unchanged."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
