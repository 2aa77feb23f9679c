"""Statistics by hand, against naive loops, and fused against materialised over shapes and masks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attention_atlas.capture.backends import choose, compute, output
from attention_atlas.capture.fused import from_passes, why_not
from attention_atlas.capture.materialised import from_matrix
from attention_atlas.capture.projection import summed_norm
from attention_atlas.capture.seam import AttentionCall
from attention_atlas.capture.want import STATISTICS, Want, indices
from attention_atlas.errors import AtlasError, ConfigError

ALL = frozenset(STATISTICS)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_by_hand():
    # One head of size 1, scale 1. Scores of the only query: 0 and ln 3, so α = 1/4 and 3/4.
    q, k = torch.ones(1, 1, 1, 1), torch.tensor([1.0, 3.0]).log().reshape(1, 1, 2, 1)
    v, weight = torch.tensor([2.0, -4.0]).reshape(1, 1, 2, 1), torch.tensor([[[3.0, 4.0]]])  # ‖W_O‖ = 5
    call = AttentionCall(nn.Module(), q, k, v, scale=1.0).factored()
    member = torch.tensor([[[True, True], [False, True]]])
    zero = torch.zeros(1, 1, dtype=torch.long)
    want = Want(ALL - {"attn"}, zero, zero + 1, torch.tensor([[[0, 1], [0, 0]]]), member)
    expected = {
        "mass": [[0.25, 1.0]],
        "entropy": [-(0.25 * math.log(0.25) + 0.75 * math.log(0.75))],
        "lse": [math.log(4)],
        "received": [0.25, 0.75],
        "rows": [[0.25, 0.75]],
        "columns": [[0.75]],
        "pairs": [0.75, 0.25],
        # f(x) = v·W_O has norms 10 and 20; Σ α f = (0.5 − 3)·W_O has norm 12.5.
        "head_norm": [12.5],
        "norm_mass": [[2.5, 17.5]],
        "norm_rows": [[2.5, 15.0]],
        "norm_summed": [[2.5, 15.0]],
    }
    for values, context in (from_passes(call, want, weight), from_matrix(call, want, weight)):
        assert context.item() == pytest.approx(-2.5, abs=1e-6)
        assert set(values) == set(expected)
        for name, numbers in expected.items():
            assert torch.allclose(values[name].flatten(), torch.tensor(numbers).flatten(), atol=1e-5), name


def naive(call, want, weight):
    """Everything by loops over single numbers, in float64."""
    b_, h_, q_, k_ = (*call.q.shape[:3], call.k.shape[2])
    score = torch.full((b_, h_, q_, k_), -math.inf, dtype=torch.float64)
    full = (b_, h_, q_, k_)
    mask = torch.ones(full, dtype=torch.bool) if call.mask is None else call.mask.expand(full)
    bias = torch.zeros(full) if call.bias is None else call.bias.expand(full)
    for b in range(b_):
        for h in range(h_):
            for i in range(q_):
                for j in range(k_):
                    if mask[b, h, i, j] and not (call.is_causal and j > i):
                        dot = (call.q[b, h, i].double() * call.k[b, h, j].double()).sum()
                        score[b, h, i, j] = dot * call.scale + bias[b, h, i, j]
    alpha = torch.zeros(full, dtype=torch.float64)
    out = {n: torch.zeros(b_, h_, q_, dtype=torch.float64) for n in ("entropy", "lse", "head_norm")}
    groups = want.member_BKG.shape[-1]
    out |= {n: torch.zeros(b_, h_, q_, groups, dtype=torch.float64) for n in ("mass", "norm_mass")}
    out["received"] = torch.zeros(b_, h_, k_, dtype=torch.float64)
    f = torch.einsum("bhkd,hdm->bhkm", call.v.double(), weight.double())
    for b in range(b_):
        for h in range(h_):
            for i in range(q_):
                total = sum(math.exp(s) for s in score[b, h, i].tolist())
                out["lse"][b, h, i] = math.log(total) if total else -math.inf
                moved = torch.zeros(weight.shape[-1], dtype=torch.float64)
                for j in range(k_):
                    a = math.exp(score[b, h, i, j]) / total if total else 0.0
                    alpha[b, h, i, j] = a
                    out["entropy"][b, h, i] -= a * math.log(a) if a else 0.0
                    if want.queries_BQ is None or want.queries_BQ[b, i]:
                        out["received"][b, h, j] += a
                    moved += a * f[b, h, j]
                    for g in range(groups):
                        if want.member_BKG[b, j, g]:
                            out["mass"][b, h, i, g] += a
                            out["norm_mass"][b, h, i, g] += a * f[b, h, j].norm()
                out["head_norm"][b, h, i] = moved.norm()
    rows = [[alpha[b, :, i] for i in want.rows_BR[b]] for b in range(b_)]
    out["rows"] = torch.stack([torch.stack(r, 1) for r in rows])
    out["norm_rows"] = out["rows"] * f.norm(dim=-1)[:, :, None]
    out["norm_summed"] = torch.einsum("bhrk,bhkm->brkm", out["rows"], f).norm(dim=-1)
    out["columns"] = torch.stack([alpha[b][:, :, want.columns_BS[b]] for b in range(b_)])
    pairs = [[alpha[b, :, i, j] for i, j in want.pairs_BP2[b]] for b in range(b_)]
    out["pairs"] = torch.stack([torch.stack(p, 1) for p in pairs])
    return out | {"attn": alpha}


@st.composite
def cases(draw, largest=4):
    """(call, want, W_O) of any shape, mask, bias, and choice of rows."""
    size = st.integers(1, largest)
    b, h, q, k, d, g = (draw(size) for _ in range(6))
    if draw(st.booleans()):
        k = q
    seed = draw(st.integers(0, 2**16))
    generator = torch.Generator().manual_seed(seed)
    kind = draw(st.sampled_from(["none", "causal", "rows", "keys", "full", "left padding"]))
    mask = None
    if kind == "rows":
        mask = torch.rand(1, 1, q, k, generator=generator) > 0.4
    elif kind == "keys":
        mask = torch.rand(b, 1, 1, k, generator=generator) > 0.4
    elif kind == "full":
        mask = torch.rand(b, h, q, k, generator=generator) > 0.4
    elif kind == "left padding":
        start = torch.randint(0, k + 1, (b, 1, 1, 1), generator=generator)
        mask = (torch.arange(k) >= start) & torch.ones(q, k, dtype=torch.bool).tril()
    bias = None
    if kind != "causal" and draw(st.booleans()):
        bias = torch.randn(b if draw(st.booleans()) else 1, h, q, k, generator=generator)
    scale = draw(st.sampled_from([None, 1.0, 0.3]))
    tensors = [torch.randn(b, h, n, d, generator=generator) * 2 for n in (q, k, k)]
    call = AttentionCall(nn.Module(), *tensors, mask, bias, scale, is_causal=kind == "causal")
    chosen = [torch.randint(0, n, (b, draw(size)), generator=generator) for n in (q, k)]
    pairs = torch.stack([torch.randint(0, n, (b, 3), generator=generator) for n in (q, k)], -1)
    member = torch.rand(b, k, g, generator=generator) > 0.5
    counts = torch.rand(b, q, generator=generator) > 0.3 if draw(st.booleans()) else None
    weight = torch.randn(h, d, 5, generator=generator)
    return call.factored(), Want(ALL, chosen[0], chosen[1], pairs, member, counts), weight


def agree(a, b, tolerance=1e-5):
    """Differences are relative for norms, whose size is that of the values."""
    assert a.shape == b.shape
    a, b = (x.double().nan_to_num(nan=1e9, neginf=-1e9) for x in (a, b))
    return float(((a - b).abs() / b.abs().clamp(min=1)).max()) <= tolerance


@given(cases(largest=3))
@settings(max_examples=40, deadline=None)
def test_materialised_equals_naive_loops(case):
    call, want, weight = case
    values, _ = from_matrix(call, want, weight)
    expected = naive(call, want, weight)
    assert set(values) == set(expected)
    for name in values:
        assert agree(values[name], expected[name]), name


@given(cases(largest=9), st.integers(1, 500))
@settings(max_examples=150, deadline=None)
def test_fused_and_blocked_equal_materialised(case, block):
    call, want, weight = case
    expected, context = from_matrix(call, want, weight)
    blocked, context_blocked = from_matrix(call, want, weight, block)
    assert agree(context_blocked, context)
    names = ALL - {"attn"} - ({"entropy"} if call.bias is not None else set())
    fused_want = Want(names, want.rows_BR, want.columns_BS, want.pairs_BP2, want.member_BKG, want.queries_BQ)
    assert not why_not(call, fused_want)
    fused, context_fused = from_passes(call, fused_want, weight)
    assert agree(context_fused, context)
    assert set(blocked) == ALL and set(fused) == names
    for name in expected:
        assert agree(blocked[name], expected[name]), name
        if name in fused:
            assert agree(fused[name], expected[name]), name


def test_summed_norm_of_one_row_equals_that_of_many():
    rows, v, weight = noise(2, 3, 4, 5).softmax(-1), noise(2, 3, 5, 6, seed=1), noise(3, 6, 7, seed=2)
    many = summed_norm(rows, v, weight)
    for r in range(4):
        assert torch.allclose(many[:, r : r + 1], summed_norm(rows[:, :, r : r + 1], v, weight), atol=1e-5)


class Cosine:
    """An alignment that is no dot product of transformed vectors as far as the capture knows."""

    def score(self, q, k):
        return torch.nn.functional.normalize(q, dim=-1) @ torch.nn.functional.normalize(k, dim=-1).mT


class General:
    """score = q W k, factored."""

    def __init__(self, w):
        self.w = w

    def factor(self, q, k):
        return q @ self.w, k, 1.0


def test_alignments_are_fused_when_they_factor_and_blocked_when_not():
    q, k, v, w = (noise(2, 2, n, 4, seed=n) for n in (3, 5, 5, 4))
    want = Want(frozenset({"entropy", "lse", "received", "columns", "pairs"}))
    want = Want(want.names, None, torch.zeros(2, 1, dtype=torch.long), torch.tensor([[[2, 1]]] * 2))
    for alignment, how, score in (
        (General(w[0, 0]), "fused", torch.einsum("bhqd,de,bhke->bhqk", q, w[0, 0], k)),
        (Cosine(), "blocked", Cosine().score(q, k)),
    ):
        call = AttentionCall(nn.Module(), q, k, v, alignment=alignment)
        factored = call.factored()
        assert choose(factored, want, "fused")[0] == how
        values, context = compute(factored, want, None, how)
        alpha = score.softmax(-1)
        assert torch.allclose(context, alpha @ v, atol=1e-6)
        assert torch.allclose(values["entropy"], -torch.xlogy(alpha, alpha).sum(-1), atol=1e-5)
        assert torch.allclose(values["lse"], score.logsumexp(-1), atol=1e-5)
        assert torch.allclose(values["received"], alpha.sum(-2), atol=1e-5)
        assert torch.allclose(values["columns"], alpha[..., :1], atol=1e-6)
        assert torch.allclose(values["pairs"], alpha[:, :, 2, 1, None], atol=1e-6)


def test_auto_explains_its_choice():
    small = AttentionCall(nn.Module(), *(noise(1, 2, 4, 4) for _ in range(3))).factored()
    large = AttentionCall(nn.Module(), *(noise(1, 2, 600, 4) for _ in range(3))).factored()
    biased = AttentionCall(nn.Module(), *(noise(1, 2, 600, 4) for _ in range(3)), bias=noise(1, 2, 600, 600))
    entropy = Want(frozenset({"entropy"}))
    assert choose(small, entropy, "auto") == ("materialised", "materialised: the matrix is small")
    assert choose(large, entropy, "auto") == ("fused", "fused: the matrix would take 3 MiB")
    assert choose(biased.factored(), entropy, "auto")[0] == "blocked"
    assert "bias" in choose(biased.factored(), entropy, "auto")[1]
    assert choose(large, Want(frozenset({"attn"})), "auto")[0] == "materialised"


def test_gradients_and_dropout_of_the_model_stay():
    q, k, v = (noise(1, 1, 3, 4, seed=s).requires_grad_() for s in range(3))
    call = AttentionCall(nn.Module(), q, k, v)
    for how in ("fused", "materialised"):
        values, made = compute(call.factored(), Want(frozenset({"entropy"})), None, how)
        assert output(call, made).requires_grad and not values["entropy"].requires_grad
    torch.manual_seed(0)
    dropped = AttentionCall(nn.Module(), q, k, v, dropout=0.9)
    _, made = compute(dropped.factored(), Want(frozenset({"lse"})), None, "fused")
    assert torch.allclose(made, call.context()) and not torch.allclose(output(dropped, made), made)


def test_wrong_requests_are_one_line():
    from attention_atlas.capture import Capture

    model = nn.Module()
    with pytest.raises(ConfigError, match="'entropie' is unknown; did you mean 'entropy'"):
        Capture(model, ["entropie"])
    with pytest.raises(ConfigError, match="groups: needed for mass"):
        Capture(model, ["mass"])
    with pytest.raises(ConfigError, match="rows: needed for norm_summed, rows"):
        Capture(model, ["rows", "norm_summed"])
    with pytest.raises(ConfigError, match="backend: 'fuse' is unknown; did you mean 'fused'"):
        Capture(model, ["lse"], backend="fuse")
    with pytest.raises(ConfigError, match="convention: 'normalised'"):
        Capture(model, ["lse"], convention="normalised")
    cpu = torch.device("cpu")
    assert indices([-1, 0], 2, (5,), "rows", cpu).tolist() == [[4, 0], [4, 0]]
    assert indices([[-1, 2]], 2, (5, 3), "pairs", cpu).tolist() == [[[4, 2]], [[4, 2]]]
    with pytest.raises(AtlasError, match="rows: a position is outside 5"):
        indices([5], 1, (5,), "rows", cpu)
    with pytest.raises(AtlasError, match=r"pairs: a position is outside 5 × 3"):
        indices([[0, 3]], 1, (5, 3), "pairs", cpu)
    with pytest.raises(AtlasError, match="pairs: shape"):
        indices([0, 1, 2], 1, (5, 3), "pairs", cpu)
