"""Attention that runs beside the capture is named, however it is written; a softmax that is none is not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attention_atlas.capture import Capture, validate
from attention_atlas.capture.seam import attend
from attention_atlas.errors import AtlasError

B, T, D = 2, 5, 8


class Own(nn.Module):
    """Attention that is captured."""

    attention_kind, layer_index = "own", 0

    def forward(self, x_BTD):
        return attend(self, *[x_BTD[:, None]] * 3)[:, 0]


class Beside(nn.Module):
    """Another module, which computes in a way of its own."""

    def __init__(self, compute):
        super().__init__()
        self.compute, self.lin = compute, nn.Linear(D, D)
        self.codebook = nn.Parameter(torch.randn(T, D))

    def forward(self, x_BTD):
        return self.compute(self, self.lin(x_BTD))


class Model(nn.Module):
    def __init__(self, compute):
        super().__init__()
        self.layers = nn.ModuleList([Own(), Beside(compute)])

    def forward(self, x_BTD):
        for layer in self.layers:
            x_BTD = x_BTD + layer(x_BTD)
        return x_BTD


def scores(x):
    return x @ x.mT


def kernel(_, x):
    return F.scaled_dot_product_attention(x, x, x)


def product(_, x):
    return F.dropout(scores(x).softmax(-1).to(torch.float64).float(), 0.0) @ x


def with_a_sink(_, x):
    return F.pad(scores(x), (0, 1)).softmax(-1)[..., :-1] @ x


def by_hand(_, x):
    exp = (scores(x) - scores(x).amax(-1, keepdim=True)).exp()
    return exp / exp.sum(-1, keepdim=True) @ x


def element_by_element(_, x):
    return (scores(x).softmax(-1)[..., None] * x[:, None]).sum(-2)


def einsum(_, x):
    return torch.einsum("bqk,bkd->bqd", scores(x).softmax(-1), x)


def deformable(_, x):
    grid = torch.stack([x[..., :4], x[..., 4:]], -1).tanh()  # (B, T, 4 points, 2)
    sampled = F.grid_sample(x.mT.reshape(B, D, 1, T), grid, align_corners=False)
    weights = x[..., :4].softmax(-1)
    return (sampled * weights[:, None]).sum(-1).mT


ATTENTION = (kernel, product, with_a_sink, by_hand, element_by_element, einsum, deformable)


@pytest.mark.parametrize("compute", ATTENTION, ids=lambda f: f.__name__)
def test_attention_beside_the_capture_fails_the_check_and_can_be_left_out(compute):
    torch.manual_seed(0)
    model, x = Model(compute).eval(), torch.randn(B, T, D)
    remedy = r"layers.1: check 'inventory': .* leave it out with layers=\['\*', '!layers\.\*'\]"
    with pytest.raises(AtlasError, match=remedy):
        validate(model, lambda: model(x))
    assert validate(model, lambda: model(x), layers=["*", "!layers.1"]) == ["layers.0"]
    with pytest.warns(UserWarning, match=r"not captured: layers\.1; leave it out"):
        assert Capture(model, ["lse"])(x).outside == ["layers.1"]


def router(module, x):
    """Two of four experts for each token, scaled and summed."""
    weights, chosen = x[..., :4].softmax(-1).topk(2)
    weights = weights / weights.sum(-1, keepdim=True)
    experts = torch.stack([x * (1 + i) for i in range(4)], -2)  # (B, T, 4, D)
    taken = experts.gather(-2, chosen[..., None].expand(-1, -1, -1, D))
    return (taken * weights[..., None]).sum(-2)


def router_of_all(module, x):
    """All experts for each token."""
    experts = torch.stack([x * (1 + i) for i in range(4)], -2)
    return (experts * x[..., :4].softmax(-1)[..., None]).sum(-2)


def codebook(module, x):
    return x[..., :T].softmax(-1) @ module.codebook


def gate(module, x):
    return x * x.softmax(-1)


def sampling(module, x):
    drawn = torch.multinomial(x.softmax(-1).flatten(0, 1), 1).reshape(B, T)
    return F.one_hot(drawn, D).float() @ module.lin.weight


def frequencies(module, x):
    """Sinusoidal positions, and a softmax whose scores nothing uses."""
    rate = torch.exp(torch.arange(D) * -0.1)
    scores(x).softmax(-1).sum()
    return x + (torch.arange(T)[:, None] * rate / 3).sin()


def streams(module, x):
    """Hyper-connections: residual streams mixed by a doubly stochastic matrix of each token."""
    mix = x[..., :4].reshape(B, T, 2, 2).softmax(-1)
    for dim in (-2, -1):
        mix = mix / mix.sum(dim, keepdim=True)
    return (mix @ x.reshape(B, T, 2, D // 2)).flatten(2)


@pytest.mark.parametrize(
    "compute",
    [streams, router, router_of_all, codebook, gate, sampling, frequencies],
    ids=lambda f: f.__name__,
)
def test_a_softmax_that_is_no_attention_is_not_named(compute):
    torch.manual_seed(0)
    model, x = Model(compute).eval(), torch.randn(B, T, D)
    assert not Capture(model, ["lse"])(x).outside
    if compute is not sampling:  # which differs from pass to pass
        assert validate(model, lambda: model(x)) == ["layers.0"]
