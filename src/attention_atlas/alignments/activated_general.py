"""Activated general (Ma et al. 2017): f(Q,K) = act(Q(WK + b))."""

from __future__ import annotations

import torch
from torch import Tensor

from attention_atlas.alignments.base import Alignment, matrix
from attention_atlas.errors import ConfigError, did_you_mean

ACTIVATIONS = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": torch.nn.functional.leaky_relu,
}


class ActivatedGeneral(Alignment):
    """score_qk = act(q·(W k + b)) (equation 9). Not a dot product, so attention is not fused.

    activation: relu in the paper; the published code uses sigmoid for AttnGAN on CUB and also offers tanh and
    leaky_relu. The element-wise form applies it to each unit before they are mixed.
    """

    swapped_in = frozenset({"scan"})

    def __init__(
        self,
        dim: int,
        key_dim: int | None = None,
        layout: str = "correct",
        init: str = "linear",
        activation: str = "relu",
    ) -> None:
        super().__init__(dim, key_dim, layout)
        if activation not in ACTIVATIONS:
            raise ConfigError(
                f"ActivatedGeneral: activation: '{activation}' is unknown"
                f"{did_you_mean(activation, ACTIVATIONS)}"
            )
        self.activation = activation
        self.weight = matrix(self.key_dim, self.dim, bias=True, init=init)

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        self.check(q, k)
        return ACTIVATIONS[self.activation](q @ self.weight(k).transpose(-1, -2))

    def elementwise(self, q: Tensor, k: Tensor) -> Tensor:
        self.check(q, k, elementwise=True)
        return ACTIVATIONS[self.activation](q * self.weight(k))
