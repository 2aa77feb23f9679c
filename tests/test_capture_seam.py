"""The seam: without a capture it is SDPA; with one, the capture sees the call."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attention_atlas.capture.seam import AttentionCall, attend, recording, residual_input


def tensors(heads=2, kv_heads=2, q=3, k=4, d=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return (
        torch.randn(1, heads, q, d, generator=g),
        torch.randn(1, kv_heads, k, d, generator=g),
        torch.randn(1, kv_heads, k, d, generator=g),
    )


def test_without_capture_it_is_sdpa():
    q, k, v = tensors()
    mask = torch.tensor([True, True, False, True]).expand(1, 1, 3, 4)
    bias = torch.randn(1, 2, 3, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(attend(nn.Module(), q, k, v), F.scaled_dot_product_attention(q, k, v))
    assert torch.equal(
        attend(nn.Module(), q, k, v, mask=mask), F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    )
    both = bias.masked_fill(~mask, float("-inf"))
    assert torch.equal(
        attend(nn.Module(), q, k, v, mask=mask, bias=bias, scale=0.3),
        F.scaled_dot_product_attention(q, k, v, attn_mask=both, scale=0.3),
    )


def test_weights_by_hand():
    # Two keys with scores 0 and ln 3: weights 1/4 and 3/4.
    q = torch.tensor([[[[1.0]]]])
    k = torch.tensor([[[[1.0], [3.0]]]]).log()
    call = AttentionCall(nn.Module(), q, k, k, scale=1.0)
    assert torch.allclose(call.weights(), torch.tensor([[[[0.25, 0.75]]]]), atol=1e-6)


def test_weights_times_values_are_the_context_with_grouped_queries_mask_and_an_empty_row():
    q, k, v = tensors(heads=4, kv_heads=2)
    mask = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    mask[..., 1, :] = False
    bias = torch.randn(1, 4, 3, 4, generator=torch.Generator().manual_seed(1))
    call = AttentionCall(nn.Module(), q, k, v, mask=mask, bias=bias)
    weights = call.weights()
    assert weights[0, :, 1].abs().sum() == 0
    assert torch.allclose(weights @ call.factored().v, call.context(), atol=1e-6)


def test_a_nan_score_stays_visible():
    q, k, v = tensors()
    q[0, 0, 0, 0] = float("nan")
    mask = torch.ones(1, 1, 3, 4, dtype=torch.bool)
    assert AttentionCall(nn.Module(), q, k, v, mask=mask).weights().isnan().any()


class Bilinear:
    def __init__(self, w):
        self.w = w

    def factor(self, q, k):
        return q @ self.w, k, 1.0

    def score(self, q, k):
        return q @ self.w @ k.transpose(-1, -2)


class ScoreOnly:
    def __init__(self, inner):
        self.score = inner.score


def test_alignment_by_factor_and_by_score_agree():
    q, k, v = tensors()
    bilinear = Bilinear(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)))
    a = attend(nn.Module(), q, k, v, alignment=bilinear)
    b = attend(nn.Module(), q, k, v, alignment=ScoreOnly(bilinear))
    expected = torch.softmax(torch.einsum("bhqd,de,bhke->bhqk", q, bilinear.w, k), -1) @ v
    assert torch.allclose(a, expected, atol=1e-6) and torch.allclose(b, expected, atol=1e-6)


class Spy:
    def __init__(self):
        self.calls, self.inputs = [], []

    def attend(self, call):
        self.calls.append(call)
        return call.context()

    def residual_input(self, module, x):
        self.inputs.append((module, x))


def test_the_innermost_recorder_sees_the_call_and_is_removed_after_an_error():
    q, k, v = tensors()
    outer, inner, owner = Spy(), Spy(), nn.Module()
    with recording(outer), pytest.raises(RuntimeError), recording(inner):
        attend(owner, q, k, v)
        residual_input(owner, q)
        raise RuntimeError
    assert len(inner.calls) == 1 and inner.calls[0].module is owner and inner.inputs[0][1] is q
    assert not outer.calls
    attend(owner, q, k, v)
    assert not outer.calls
