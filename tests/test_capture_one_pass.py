"""The kernel of one pass against the plain softmax in float64, on a GPU or by Triton's interpreter.

Without a GPU: pip install triton, then TRITON_INTERPRET=1 pytest tests/test_capture_one_pass.py
"""

import dataclasses
import importlib.util
import logging
import os

import capture_models
import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture, Groups, one_pass, role_groups, roles_of_ids, validate
from attention_atlas.capture.backends import choose
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import Want

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
TRITON = importlib.util.find_spec("triton") is not None
runs_kernel = pytest.mark.skipif(
    not TRITON or not (CUDA or os.environ.get("TRITON_INTERPRET") == "1"),
    reason="the kernel needs Triton and a GPU, or TRITON_INTERPRET=1 for its interpreter",
)
# Rounding of α·V in the type of the call; statistics are float32 for every type.
CONTEXT = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
STATISTICS = 5e-5
NAMES = frozenset({"mass", "entropy", "lse"})


def made(
    batch=2, heads=4, repeat=1, queries=17, keys=None, width=16, value=None, dtype=torch.bfloat16, **more
):
    generator = torch.Generator().manual_seed(queries * 31 + width)
    keys = queries if keys is None else keys

    def noise(heads, length, size):
        # As models have it in memory: heads last, split after one linear layer.
        x = torch.randn(batch, length, heads, size, generator=generator)
        return (1.5 * x).to(DEVICE, dtype).transpose(1, 2)

    q, k = noise(heads, queries, width), noise(heads // repeat, keys, width)
    return AttentionCall(nn.Module(), q, k, noise(heads // repeat, keys, value or width), **more)


def members(call, groups):
    generator = torch.Generator().manual_seed(groups)
    batch, keys = len(call.q), call.k.shape[2]
    return (torch.rand(batch, keys, groups, generator=generator) > 0.5).to(DEVICE)


def compare(call, groups=3, member=None):
    member = members(call, groups) if member is None else member
    want = Want(NAMES, member_BKG=member)
    values, context = one_pass.from_kernel(call, want)
    # Without the context its blocks have other sizes.
    bare, _ = one_pass.from_kernel(call, want, context=False)
    repeat = call.q.shape[1] // call.k.shape[1]
    q = call.q.double()
    k, v = (x.double().repeat_interleave(repeat, 1) for x in (call.k, call.v))
    score = q @ k.mT * (call.scale or q.shape[-1] ** -0.5)
    hidden = torch.zeros(score.shape, dtype=torch.bool, device=DEVICE)
    if call.mask is not None:
        hidden |= ~call.mask
    if call.is_causal:
        hidden |= torch.ones(score.shape[-2:], device=DEVICE).triu(1).bool()
    score = score.masked_fill(hidden, float("-inf"))
    alpha = torch.softmax(score, -1).nan_to_num(0.0)
    expected = {
        "mass": alpha @ member[:, None].double(),
        "entropy": -torch.xlogy(alpha, alpha).sum(-1),
        "lse": score.logsumexp(-1),
    }
    for name, value in expected.items():
        assert values[name].dtype == torch.float32 and values[name].shape == value.shape, name
        for found in (values, bare):
            torch.testing.assert_close(found[name].double(), value, atol=STATISTICS, rtol=STATISTICS)
    assert context.dtype == call.v.dtype
    tolerance = CONTEXT[call.v.dtype]
    torch.testing.assert_close(context.double(), alpha @ v, atol=tolerance, rtol=tolerance)


@runs_kernel
@pytest.mark.parametrize("dtype", CONTEXT, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("length", [1, 17, 130])
def test_lengths_and_types(length, causal, dtype):
    compare(made(queries=length, dtype=dtype, is_causal=causal))


@runs_kernel
@pytest.mark.parametrize("queries, keys", [(1, 130), (130, 70), (70, 130), (64, 128), (257, 1)])
@pytest.mark.parametrize("causal", [False, True])
def test_other_numbers_of_keys(queries, keys, causal):
    compare(made(heads=1, queries=queries, keys=keys, is_causal=causal))


@runs_kernel
@pytest.mark.parametrize("repeat", [2, 4])
def test_grouped_queries(repeat):
    compare(made(repeat=repeat, queries=130, width=32, is_causal=True))


@runs_kernel
@pytest.mark.parametrize("groups", [1, 2, 16, 17, 40])
def test_numbers_of_groups(groups):
    compare(made(queries=70, is_causal=True), groups)


@runs_kernel
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_long_runs_of_keys_in_the_same_groups(dtype, causal):
    """Runs that share their groups, and mixed blocks between them, differ within the batch."""
    call = made(heads=1, queries=900, keys=900, dtype=dtype, is_causal=causal)
    # Scores that grow: the maximum changes from run to run.
    call = dataclasses.replace(call, k=call.k * torch.linspace(0.2, 2, 900, device=DEVICE)[:, None].to(dtype))
    at = torch.arange(900)
    member = torch.zeros(2, 900, 3, dtype=torch.bool)
    member[0] = torch.stack([at == 0, (at > 0) & (at < 580), at >= 580], -1)
    member[1] = torch.stack([at < 300, at % 7 == 0, at > 290], -1)
    assert [len(one_pass._runs(one, 128)) for one in member] == [4, 1]
    compare(call, member=member.to(DEVICE))


@runs_kernel
@pytest.mark.parametrize(
    "width, value", [(24, 24), (80, 80), (128, 128), (16, 40), (72, 16), (5, 3), (256, 256)]
)
def test_head_sizes(width, value):
    compare(made(batch=1, heads=2, queries=70, width=width, value=value, is_causal=True))


@runs_kernel
@pytest.mark.parametrize("dtype", CONTEXT, ids=str)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [(2, 1, 1, 130), (1, 1, 130, 130), (2, 4, 130, 130), (2, 1, 130, 1)], ids=str
)
def test_masks(shape, causal, dtype):
    """Also rows that see nothing (lse −inf, mass, entropy and context 0), and blocks without visible keys."""
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(0)) > 0.5
    mask[..., :70] = False
    mask[0, :, :1] = False
    compare(made(queries=130, dtype=dtype, mask=mask.to(DEVICE), is_causal=causal))


@runs_kernel
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding(side):
    """As transformers gives it: one bool mask of padding and causality."""
    length = torch.tensor([130, 60])
    at = torch.arange(130)
    real = at < length[:, None] if side == "right" else at >= 130 - length[:, None]
    mask = real[:, None, None] & torch.ones(130, 130).tril().bool()
    compare(made(queries=130, mask=mask.to(DEVICE)))


@runs_kernel
def test_large_scores_and_a_given_scale():
    call = made(queries=130, is_causal=True, scale=2.5)
    call.q[:, :, 5] = 0.0
    call.q[:, :, 100:] *= 8
    member = members(call, 2)
    values, _ = one_pass.from_kernel(call, Want(NAMES, member_BKG=member))
    alpha = AttentionCall(nn.Module(), call.q.double(), call.k.double(), call.v, scale=2.5, is_causal=True)
    alpha = alpha.weights()
    assert torch.allclose(values["mass"].double(), alpha @ member[:, None].double(), atol=2e-4)
    assert torch.allclose(values["entropy"].double(), -torch.xlogy(alpha, alpha).sum(-1), atol=2e-3)
    assert bool((values["entropy"] >= 0).all())


@runs_kernel
def test_only_what_is_requested_is_computed():
    call = made(is_causal=True)
    values, context = one_pass.from_kernel(call, Want(frozenset({"lse"})), context=False)
    assert list(values) == ["lse"] and context is None
    full, _ = one_pass.from_kernel(call, Want(NAMES, member_BKG=members(call, 3)))
    assert torch.equal(values["lse"], full["lse"])


@runs_kernel
def test_rows_columns_pairs_and_norms_follow_from_its_lse_and_context():
    call = made(repeat=2, dtype=torch.float32, is_causal=True)
    ends, pairs = torch.tensor([[0, 16]] * 2, device=DEVICE), torch.tensor([[[9, 4]]] * 2, device=DEVICE)
    want = Want(frozenset({"rows", "columns", "pairs", "head_norm"}), ends, ends, pairs)
    weight = torch.randn(4, 16, 5).to(DEVICE)
    values, _ = one_pass.from_kernel(call, want, weight, context=False)
    alpha = call.weights()
    torch.testing.assert_close(values["rows"], alpha[:, :, [0, 16]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values["columns"], alpha[..., [0, 16]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(values["pairs"], alpha[:, :, 9, 4, None], atol=1e-5, rtol=1e-4)
    norm = torch.einsum("bhqd,hdm->bhqm", alpha @ call.v.repeat_interleave(2, 1), weight).norm(dim=-1)
    torch.testing.assert_close(values["head_norm"], norm, atol=1e-3, rtol=1e-3)


def on_gpu(monkeypatch, model, inputs, dtype):
    """The model as on a GPU, or with the kernel interpreted on the CPU."""
    if not CUDA:
        monkeypatch.setattr(one_pass, "_device", lambda device: "")
    return model.to(DEVICE, dtype), {name: x.to(DEVICE) for name, x in inputs.items()}


@runs_kernel
@pytest.mark.parametrize("name", ["llama", "llama_right"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_model_is_captured_in_one_pass(name, dtype, monkeypatch, caplog):
    model, inputs = on_gpu(monkeypatch, *capture_models.tiny(name), dtype)
    mask = inputs["attention_mask"]
    groups = role_groups(roles_of_ids(inputs["input_ids"], model.config, mask))
    with torch.no_grad():
        plain = model(**inputs).logits
    reference = Capture(model, ["mass", "entropy"], groups=groups, backend="materialised")(**inputs)
    caplog.set_level(logging.INFO)
    auto = Capture(model, ["mass", "entropy"], groups=groups)(**inputs)
    assert "one pass: the kernel supports this call" in caplog.text
    one = Capture(model, ["mass", "entropy"], groups=groups, backend="one_pass")(**inputs)
    visible = mask.bool()
    half = dtype == torch.bfloat16
    if half:
        # The model's own context by default; the kernel's only where it was requested.
        assert torch.equal(auto.output.logits, plain)
    assert torch.allclose(one.output.logits[visible], plain[visible], atol=0.05 if half else 1e-4)
    (kind,) = reference
    for captured, tolerance in ((auto, 1e-4), (one, 2e-2 if half else 1e-4)):
        for statistic in ("mass", "entropy"):
            # Queries of padding see nothing that counts; B, Q first, then layer and head.
            found, expected = (
                x[kind].values[statistic].movedim(3, 1)[visible.cpu()] for x in (captured, reference)
            )
            assert float((found - expected).abs().max()) < tolerance, statistic
    assert len(validate(model, lambda: model(**inputs), visible_BT=visible)) == 2


@runs_kernel
def test_a_wrong_kernel_is_found_by_the_check_of_the_first_call(monkeypatch):
    from attention_atlas.errors import AtlasError

    model, inputs = on_gpu(monkeypatch, *capture_models.tiny("llama"), torch.float32)
    right = one_pass.attention

    def wrong(*args, **more):
        context, *rest = right(*args, **more)
        return (None if context is None else context * 1.5, *rest)

    monkeypatch.setattr(one_pass, "attention", wrong)
    with pytest.raises(AtlasError, match="check 'weights times values'"):
        Capture(model, ["lse"])(**inputs)


# What needs no kernel ---------------------------------------------------------------------------------


def test_without_cuda_or_triton_the_fused_passes_compute_and_the_log_says_so(monkeypatch, caplog):
    monkeypatch.setattr(one_pass, "_device", lambda device: "Triton is not installed")
    call = made(queries=130, dtype=torch.float32, is_causal=True)
    assert choose(call.factored(), Want(NAMES), "one_pass") == (
        "fused",
        "fused, as requested; not in one pass: Triton is not installed",
    )
    model, inputs = capture_models.tiny("llama")
    caplog.set_level(logging.INFO)
    captured = Capture(model, ["entropy"], backend="one_pass")(**inputs)
    assert "not in one pass: Triton is not installed" in caplog.text
    expected = Capture(model, ["entropy"], backend="materialised")(**inputs)
    (kind,) = captured
    assert torch.allclose(captured[kind].entropy, expected[kind].entropy, atol=1e-4)


def test_a_triton_that_cannot_run_is_a_reason(monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("Failed to find C compiler.\nSet CC")

    monkeypatch.setattr(one_pass, "attention", broken)
    reason = "Triton cannot run its kernel (Failed to find C compiler.)"
    assert one_pass._trial(torch.device("cpu")) == reason


@runs_kernel
def test_the_trial_runs_the_kernel():
    assert one_pass._trial(torch.device(DEVICE)) == ""


@pytest.mark.skipif(CUDA, reason="for machines without CUDA")
def test_a_cpu_is_not_supported():
    assert one_pass.why_not(made(), Want(NAMES)) == "the device is not CUDA"


@pytest.mark.parametrize(
    "more, names, reason",
    [
        ({"softcap": 2.0}, NAMES, "not a plain dot product"),
        ({"sink": torch.zeros(4)}, NAMES, "not a plain dot product"),
        ({"bias": torch.zeros(1, 1, 17, 17)}, NAMES, "a bias is added"),
        ({"dtype": torch.float64}, NAMES, "the type is torch.float64"),
        ({"width": 264}, NAMES, "head size is above 256"),
        ({"width": 136, "dtype": torch.float32}, NAMES, "head size is above 128"),
        ({"keys": 0}, NAMES, "a tensor is empty"),
        ({}, NAMES | {"received", "norm_mass"}, "norm_mass, received needs another pass"),
    ],
)
def test_what_the_kernel_does_not_support(more, names, reason):
    assert reason in one_pass.unsupported(made(**more), Want(names))
    assert one_pass.unsupported(made(), Want(NAMES)) == ""


def test_membership_is_copied_to_a_device_once_and_again_when_it_changes():
    groups, cpu = Groups(["a"], torch.ones(1, 3, 1)), torch.device("cpu")
    first = groups.on(cpu, 2)
    assert first is groups.on(cpu, 2) and first.shape == (2, 3, 1) and first.all()
    assert groups.on(cpu, 1).shape == (1, 3, 1)
    groups.member_BKG = torch.zeros(1, 3, 1, dtype=torch.bool)
    assert not groups.on(cpu, 1).any()


def test_runs_of_blocks():
    """Keys 0 BOS, 1 to 40 image, then text; blocks of 4; the last two keys are no whole block."""
    at = torch.arange(70)
    label = (at > 0).long() + (at > 40)
    member = torch.nn.functional.one_hot(label, 3).bool()
    assert one_pass._runs(member, 4) == [(0, 4, 0), (4, 40, 1), (40, 44, 0), (44, 68, 1)]
    every_other = torch.nn.functional.one_hot(at // 4 % 2, 2).bool()
    assert one_pass._runs(every_other, 4) == [(0, 68, 0)]
    assert one_pass._runs(every_other[:, :1], 8) == [(0, 64, 0)]
    assert one_pass._runs(member[:3], 4) == []
