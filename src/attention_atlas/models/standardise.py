"""Region features with mean 0 and standard deviation 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 1e-3  # standard deviation below which a feature counts as constant


class Standardise(nn.Module):
    """(x − mean) / std of each feature; the identity until `fit`. The statistics are saved with the weights.

    Features after a ReLU are never negative, so all regions, and pooled images even more, are similar:
    without this a model first has to learn to ignore what they share.
    """

    mean_D: Tensor
    std_D: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean_D", torch.zeros(dim))
        self.register_buffer("std_D", torch.ones(dim))

    def fit(self, mean_D: Tensor, std_D: Tensor) -> None:
        self.mean_D.copy_(mean_D)
        self.std_D.copy_(std_D.clamp(min=LEAST))

    def forward(self, features_BND: Tensor) -> Tensor:
        return (features_BND - self.mean_D) / self.std_D
