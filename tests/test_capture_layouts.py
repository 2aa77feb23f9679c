"""Every back end and the output against the plain definition, for all strides, types and sizes."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attention_atlas.capture import Capture, validate
from attention_atlas.capture.backends import choose, compute, output
from attention_atlas.capture.fused import why_not
from attention_atlas.capture.seam import AttentionCall, attend
from attention_atlas.capture.want import STATISTICS, Want

NAMES = frozenset(STATISTICS)
LAYOUTS = ("dense", "transposed", "head last", "every second", "odd start", "one batch", "reversed")


def laid_out(x, layout):
    """The same numbers elsewhere in memory."""
    if layout == "transposed":
        return x.mT.contiguous().mT
    if layout == "head last":
        return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    if layout == "every second":
        return torch.stack([x, x], -1).flatten(-2)[..., ::2]
    if layout == "odd start":
        return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)
    if layout == "one batch" and len(x):
        return x[:1].expand(x.shape)
    if layout == "reversed":
        return x.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    return x


@st.composite
def calls(draw):
    size = st.integers(0, 9) if draw(st.booleans()) else st.integers(1, 3)
    batch, keys, queries = draw(size), draw(size), draw(size)
    groups, repeat = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    width, value_width = (draw(st.sampled_from([1, 2, 3, 7, 8, 9, 16, 17])) for _ in range(2))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    layout = st.sampled_from(LAYOUTS)

    def noise(*shape):
        return laid_out(torch.randn(*shape, generator=generator).to(dtype), draw(layout))

    q = noise(batch, groups * repeat, queries, width)
    k, v = noise(batch, groups, keys, width), noise(batch, groups, keys, value_width)
    mask = bias = None
    causal = draw(st.booleans())
    heads = groups * repeat
    shapes = [
        (batch, 1, 1, keys),
        (1, 1, queries, keys),
        (batch, heads, queries, keys),
        (batch, 1, queries, 1),
    ]
    if draw(st.booleans()):
        mask = laid_out(torch.rand(draw(st.sampled_from(shapes)), generator=generator) > 0.3, draw(layout))
    if draw(st.booleans()):
        bias = noise(*draw(st.sampled_from(shapes[:3])))
    softcap = draw(st.sampled_from([None, None, 2.0]))
    sink = torch.randn(heads, generator=generator) if softcap is None and draw(st.booleans()) else None
    scale = draw(st.sampled_from([None, 0.7]))
    return AttentionCall(
        nn.Module(), q, k, v, mask, bias, scale, is_causal=causal, softcap=softcap, sink=sink
    )


def plain(call):
    """(α of the tokens, α with the sink, lse, context) in float64, from the definition alone."""
    q, k, v = call.q.double(), call.k.double(), call.v.double()
    repeat = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
    score = torch.einsum("bhqd,bhkd->bhqk", q, k) * (call.scale or q.shape[-1] ** -0.5)
    if call.softcap:
        score = call.softcap * torch.tanh(score / call.softcap)
    if call.bias is not None:
        score = score + call.bias.double()
    hidden = torch.zeros(score.shape, dtype=torch.bool)
    if call.mask is not None:
        hidden |= ~call.mask
    if call.is_causal:
        queries, keys = score.shape[-2:]
        hidden |= torch.arange(keys) > torch.arange(queries)[:, None]
    score = score.masked_fill(hidden, -math.inf)
    if call.sink is not None:
        sink = call.sink.double().reshape(1, -1, 1, 1).expand(*score.shape[:3], 1)
        score = torch.cat([score, sink], -1)
    exp = score.exp()
    total = exp.sum(-1, keepdim=True)
    full = torch.where(total > 0, exp / total, 0.0)
    alpha = full[..., : k.shape[2]]
    return alpha, full, total[..., 0].log(), alpha @ v


@given(calls())
@settings(max_examples=150, deadline=None)
def test_every_back_end_equals_the_definition(call):
    factored = call.factored()
    batch, heads, queries, keys = *call.q.shape[:3], call.k.shape[2]
    generator = torch.Generator().manual_seed(0)
    member = torch.rand(batch, keys, 3, generator=generator) > 0.5
    rows = torch.arange(min(queries, 2)).expand(batch, -1)
    columns = torch.arange(min(keys, 2)).expand(batch, -1)
    pairs = torch.zeros(batch, min(queries, keys, 1), 2, dtype=torch.long)
    counted = torch.rand(batch, queries, generator=generator) > 0.3
    weight = torch.randn(heads, call.v.shape[-1], 5, generator=generator)
    alpha, full, lse, context = plain(call)
    f = torch.einsum("bhkd,hdm->bhkm", factored.v.double(), weight.double())
    at_rows = alpha[:, :, : rows.shape[1]]
    expected = {
        "mass": alpha @ member[:, None].double(),
        "entropy": -torch.xlogy(full, full).sum(-1),
        "lse": lse,
        "received": (alpha * counted[:, None, :, None]).sum(-2),
        "attn": alpha,
        "rows": at_rows,
        "columns": alpha[..., : columns.shape[1]],
        "pairs": alpha[:, :, 0, :1] if pairs.shape[1] else alpha.new_zeros(batch, heads, 0),
        "head_norm": torch.einsum("bhqk,bhkm->bhqm", alpha, f).norm(dim=-1),
        "norm_mass": alpha @ (member[:, None] * f.norm(dim=-1)[..., None]),
        "norm_rows": at_rows * f.norm(dim=-1)[:, :, None],
        "norm_summed": torch.einsum("bhrk,bhkm->brkm", at_rows, f).norm(dim=-1),
    }
    hows = {"materialised": NAMES, "blocked": NAMES}
    separable = NAMES - {"attn"} - ({"entropy"} if call.bias is not None else set())
    want_fused = Want(separable, rows, columns, pairs, member, counted)
    if not why_not(factored, want_fused) and alpha.numel():
        hows["fused"] = separable
    for how, names in hows.items():
        values, made = compute(factored, Want(names, rows, columns, pairs, member, counted), weight, how)
        assert set(values) == set(names)
        for name, value in [*values.items(), ("context", made)]:
            reference = context if name == "context" else expected[name]
            assert value.shape == reference.shape, (how, name)
            a, b = (x.double().nan_to_num(neginf=-1e9) for x in (value, reference))
            error = ((a - b).abs() / b.abs().clamp(min=1)).flatten()
            assert not len(error) or float(error.max()) <= 2e-5, (how, name)
        shown = output(call, made).double()
        rough = {torch.float16: 1e-2, torch.bfloat16: 6e-2}.get(call.q.dtype, 2e-5)
        assert torch.allclose(shown, context, rtol=rough, atol=rough), how
    assert choose(factored, want_fused, "fused")[0] in hows


class Attention(nn.Module):
    """Queries, keys and values from convolutions, so that their last axis is not the dense one."""

    attention_kind, layer_index = "image_self", 0

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv1d(32, 32, 1) for _ in range(3))

    def forward(self, x_BCT):
        q, k, v = (part(x_BCT).unflatten(1, (4, 8)).mT for part in self.parts)
        return attend(self, q, k, v)


@pytest.mark.parametrize("backend", ["auto", "fused", "materialised"])
def test_a_model_whose_last_axis_is_not_dense_keeps_its_output(backend):
    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(2, 32, 300)
    with torch.no_grad():
        expected = model(x)
    captured = Capture(model, ["entropy", "attn"], backend="materialised")(x)
    found = Capture(model, ["entropy"], backend=backend)(x)
    assert torch.allclose(found.output, expected, atol=1e-5)
    entropy = -torch.xlogy(captured["image_self"].attn, captured["image_self"].attn).sum(-1)
    assert torch.allclose(found["image_self"].entropy, entropy, atol=1e-4)
    assert validate(model, lambda: model(x), backend=backend) == ["Attention"]


def test_the_check_runs_the_back_end_that_is_used(monkeypatch):
    """Sizes are small, so that auto would not fuse; the fused pass is still checked."""
    from attention_atlas.capture import fused
    from attention_atlas.errors import AtlasError

    torch.manual_seed(0)
    model, x = Attention().eval(), torch.randn(1, 32, 6)
    right = fused._attend_lse

    def wrong(*args):
        context, lse = right(*args)
        return context, lse + 0.1

    monkeypatch.setattr(fused, "_attend_lse", wrong)
    assert validate(model, lambda: model(x), backend="materialised")
    for backend in ("auto", "fused"):
        with pytest.raises(
            AtlasError, match=r"Attention: check '(lse|entropy|mass|received|columns), fused'"
        ):
            validate(model, lambda backend=backend: model(x), backend=backend)


@pytest.mark.parametrize("backend", ["auto", "fused", "materialised"])
def test_the_word_attention_of_attngan_keeps_its_image(backend):
    from attention_atlas.models.attngan.generator import WordAttention

    torch.manual_seed(0)
    model = WordAttention(12, 16, 0, None).eval()
    inputs = (
        torch.randn(2, 16, 24, 24),
        torch.randn(2, 5, 12),
        torch.tensor([[True] * 5, [True] * 3 + [False] * 2]),
    )
    with torch.no_grad():
        plain = model(*inputs)
    captured = Capture(model, ["entropy", "rows"], rows=[0, -1], backend=backend)(*inputs)
    assert torch.allclose(captured.output, plain, atol=1e-5)
    (kind,) = captured.values()
    rows = kind.rows
    entropy = -torch.xlogy(rows, rows).sum(-1)
    assert torch.allclose(kind.entropy[..., [0, -1]], entropy, atol=1e-4)
    assert len(validate(model, lambda: model(*inputs), backend=backend)) == 1
