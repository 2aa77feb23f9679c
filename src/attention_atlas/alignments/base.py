"""The interface of all alignment functions, and building one from a model's configuration.

An alignment scores each (query, key) pair independently: for cross-attention, for self-attention (leading
axes B and H) and in MAC's element-wise form. Axis letters: Q queries, K keys, D size of a query, E size of a
key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from attention_atlas.errors import AtlasError, ConfigError

LAYOUTS = ("correct", "published")
INITS = ("linear", "identity")


class Alignment(nn.Module, ABC):
    """Base class, constructed for one attention module: queries have `dim` units, keys `key_dim` (None: also
    `dim`).

    layout: `published` keeps the axis order of the paper's published code where it differs from what the next
    line of that code expects; see `swaps_axes` for the models concerned.
    """

    # Models of the published code (scan, m4c) in which this score swaps queries and keys.
    swapped_in: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, dim: int, key_dim: int | None = None, layout: str = "correct") -> None:
        super().__init__()
        if layout not in LAYOUTS:
            name = type(self).__name__
            raise ConfigError(f"{name}: layout: '{layout}' is not one of {', '.join(LAYOUTS)}")
        self.dim, self.key_dim, self.layout = dim, dim if key_dim is None else key_dim, layout

    def swaps_axes(self, model: str) -> bool:
        """Whether `model` ("scan", "m4c") must reproduce the published code's swapped axes."""
        return self.layout == "published" and model in self.swapped_in

    @abstractmethod
    def score(self, q: Tensor, k: Tensor) -> Tensor:
        """q (...,Q,D), k (...,K,E) with equal leading axes -> scores (...,Q,K).

        Raises AtlasError naming the axis of the wrong size.
        """

    @abstractmethod
    def elementwise(self, q: Tensor, k: Tensor) -> Tensor:
        """MAC's form: q (...,1,D) or (...,K,D), k (...,K,E) -> (...,K,D or E), not yet summed over units."""

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return self.score(q, k)

    def check(self, q: Tensor, k: Tensor, elementwise: bool = False, leading: bool = True) -> None:
        """Raise AtlasError, naming the axis, unless q and k match each other and this module."""
        name = type(self).__name__
        for what, value, size, letter in (("query", q, self.dim, "D"), ("key", k, self.key_dim, "E")):
            if value.ndim < 2 or value.shape[-1] != size:
                axes = "(...,Q,D)" if what == "query" else "(...,K,E)"
                raise AtlasError(
                    f"{name}: {what}: expected {axes} with {letter}={size}, got {tuple(value.shape)}; "
                    "set dim and key_dim to the model's sizes"
                )
        if leading and q.shape[:-2] != k.shape[:-2]:
            raise AtlasError(
                f"{name}: leading axes of query {tuple(q.shape[:-2])} and key {tuple(k.shape[:-2])} differ; "
                "expand the smaller one"
            )
        if elementwise and q.shape[-2] not in (1, k.shape[-2]):
            raise AtlasError(
                f"{name}: query axis Q={q.shape[-2]} must be 1 or the number of keys K={k.shape[-2]} "
                "in the element-wise form"
            )


class Bilinear(Alignment):
    """A dot product of transformed queries and keys, which fused attention can compute."""

    @abstractmethod
    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        """(q', k', scale): the score is q'·k' · scale."""

    def factor(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        """For `capture.seam`: as `transform`, with the sizes checked. Keys may have fewer heads."""
        self.check(q, k, leading=False)
        return self.transform(q, k)

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        self.check(q, k)
        q, k, scale = self.transform(q, k)
        return q @ k.transpose(-1, -2) * scale

    def elementwise(self, q: Tensor, k: Tensor) -> Tensor:
        self.check(q, k, elementwise=True)
        q, k, scale = self.transform(q, k)
        return q * k * scale


class General(Bilinear):
    """A dot product with a learned matrix, `bias` or not, that transforms the queries or the keys."""

    bias: ClassVar[bool] = False
    of_queries: ClassVar[bool]

    def __init__(
        self, dim: int, key_dim: int | None = None, layout: str = "correct", init: str = "linear"
    ) -> None:
        super().__init__(dim, key_dim, layout)
        sizes = (self.dim, self.key_dim) if self.of_queries else (self.key_dim, self.dim)
        self.weight = matrix(*sizes, bias=self.bias, init=init)

    def transform(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, float]:
        return (self.weight(q), k, 1.0) if self.of_queries else (q, self.weight(k), 1.0)


class SwappedSelf(nn.Module):
    """Scores of a self-attention with queries and keys exchanged: entry (i,j) is the score of query j and
    key i. M4C's published code does this for f(K,Q): it never transposes the product back."""

    def __init__(self, inner: Alignment) -> None:
        super().__init__()
        self.inner = inner

    def score(self, q: Tensor, k: Tensor) -> Tensor:
        if q.shape[-2] != k.shape[-2]:
            raise AtlasError(
                f"layout='published' needs as many queries as keys, not Q={q.shape[-2]} and K={k.shape[-2]}; "
                "use layout='correct'"
            )
        return self.inner.score(q, k).transpose(-1, -2)


def same_size(alignment: Alignment) -> None:
    """Raise ConfigError unless queries and keys have the same number of units."""
    if alignment.dim != alignment.key_dim:
        raise ConfigError(
            f"{type(alignment).__name__}: dim {alignment.dim} and key_dim {alignment.key_dim} differ; "
            "project queries or keys, or use a general alignment"
        )


def matrix(inputs: int, outputs: int, bias: bool, init: str) -> nn.Linear:
    """W (and b). init: `linear` is torch's default for a linear layer, as in the published code; `identity`
    starts as the dot product with b = 0."""
    if init not in INITS:
        raise ConfigError(f"alignment: init: '{init}' is not one of {', '.join(INITS)}")
    layer = nn.Linear(inputs, outputs, bias=bias)
    if init == "identity":
        with torch.no_grad():
            layer.weight.copy_(torch.eye(outputs, inputs))
            if bias:
                layer.bias.zero_()
    return layer
