"""Alignment functions against the paper's formulas, and the properties that make some of them the same."""

from __future__ import annotations

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attention_atlas.alignments.activated_general import ActivatedGeneral
from attention_atlas.alignments.base import Alignment, Bilinear, SwappedSelf
from attention_atlas.alignments.biased_general_kq import BiasedGeneralKQ
from attention_atlas.alignments.biased_general_qk import BiasedGeneralQK
from attention_atlas.alignments.build import build_alignment
from attention_atlas.alignments.cosine import Cosine
from attention_atlas.alignments.dot import Dot
from attention_atlas.alignments.general_kq import GeneralKQ
from attention_atlas.alignments.general_qk import GeneralQK
from attention_atlas.alignments.scaled_dot import ScaledDot
from attention_atlas.capture.seam import AttentionCall, attend
from attention_atlas.errors import AtlasError, ConfigError

WITH_W = (GeneralKQ, GeneralQK, BiasedGeneralKQ, BiasedGeneralQK, ActivatedGeneral)
ALL = (Dot, ScaledDot, Cosine, *WITH_W)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seeded(kind: type, *args: int, **more: str) -> Alignment:
    torch.manual_seed(3)
    return kind(*args, **more)


# One query (1, 2), one key (3, -1); W = [[1, 2], [0, 1]] and b = (1, -2), both of the linear layer.
# dot 1; W k = (1, -1) -> q·Wk = -1; W q = (5, 2) -> k·Wq = 13; biases: q·b = -3, k·b = 5.
@pytest.mark.parametrize(
    ("kind", "score", "units"),
    [
        (Dot, 1.0, [3.0, -2.0]),
        (ScaledDot, 1 / 2**0.5, [3 / 2**0.5, -2 / 2**0.5]),
        (Cosine, 1 / 50**0.5, [3 / 50**0.5, -2 / 50**0.5]),
        (GeneralQK, -1.0, [1.0, -2.0]),
        (GeneralKQ, 13.0, [15.0, -2.0]),
        (BiasedGeneralQK, -4.0, [2.0, -6.0]),
        (BiasedGeneralKQ, 18.0, [18.0, 0.0]),
        (ActivatedGeneral, 0.0, [2.0, 0.0]),
    ],
)
def test_by_hand(kind, score, units):
    alignment = kind(2)
    with torch.no_grad():
        if kind in WITH_W:
            alignment.weight.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, 1.0]]))
            if alignment.weight.bias is not None:
                alignment.weight.bias.copy_(torch.tensor([1.0, -2.0]))
        q, k = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, -1.0]])
        assert torch.allclose(alignment(q, k), torch.tensor([[score]]))
        assert torch.allclose(alignment.elementwise(q, k), torch.tensor([units]))


@pytest.mark.parametrize("kind", ALL)
@settings(max_examples=8, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 6), st.integers(1, 7), st.integers(0, 99))
def test_each_pair_is_scored_by_itself(kind, b, queries, keys, dim, seed):
    alignment = seeded(kind, dim)
    q, k = draw(b, 2, queries, dim, seed=seed), draw(b, 2, keys, dim, seed=seed + 1)
    score = alignment.score(q, k)
    assert score.shape == (b, 2, queries, keys)
    for i in range(b):
        for x in range(queries):
            for y in range(keys):
                alone = alignment.score(q[i, 1, x][None], k[i, 1, y][None])[0, 0]
                assert torch.allclose(score[i, 1, x, y], alone, atol=1e-5)


@pytest.mark.parametrize("kind", [k for k in ALL if issubclass(k, Bilinear)])
@pytest.mark.parametrize("queries", [1, 4])
def test_elementwise_sums_to_the_score(kind, queries):
    alignment = seeded(kind, 6)
    q, k = draw(3, queries, 6), draw(3, 4, 6, seed=1)
    units = alignment.elementwise(q, k)
    assert units.shape == (3, 4, 6)
    score = alignment.score(q, k)  # (3, queries, 4)
    wanted = score[:, 0] if queries == 1 else score.diagonal(dim1=1, dim2=2)
    assert torch.allclose(units.sum(-1), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [GeneralKQ, GeneralQK, BiasedGeneralKQ, BiasedGeneralQK])
def test_identity_makes_general_the_dot_product(kind):
    q, k = draw(2, 3, 5), draw(2, 4, 5, seed=1)
    alignment = kind(5, init="identity")
    assert torch.equal(alignment.score(q, k), Dot(5).score(q, k))
    assert torch.equal(alignment.elementwise(q, k[:, :3]), Dot(5).elementwise(q, k[:, :3]))
    assert not torch.allclose(seeded(kind, 5).score(q, k), Dot(5).score(q, k), atol=0.1)


def test_a_bias_that_is_constant_over_keys_changes_nothing_and_one_that_is_not_does():
    q, k = draw(2, 3, 5), draw(2, 4, 5, seed=1)
    for biased, plain, same in ((BiasedGeneralQK, GeneralQK, True), (BiasedGeneralKQ, GeneralKQ, False)):
        one, other = seeded(biased, 5), plain(5)
        other.weight.weight.data.copy_(one.weight.weight)
        a, b = one.score(q, k), other.score(q, k)
        assert not torch.allclose(a, b, atol=1e-2)
        assert torch.allclose(a.softmax(-1), b.softmax(-1), atol=1e-6) is same


@pytest.mark.parametrize("kind", ALL)
def test_permuting_keys_permutes_weights(kind):
    alignment = seeded(kind, 5)
    q, k = draw(2, 3, 5), draw(2, 7, 5, seed=1)
    order = torch.tensor([4, 0, 6, 2, 1, 5, 3])
    weights = alignment.score(q, k).softmax(-1)
    assert torch.allclose(alignment.score(q, k[:, order]).softmax(-1), weights[..., order], atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4])
def test_gradients_are_finite(kind, size):
    alignment = seeded(kind, 5)
    q, k = (draw(2, 3, 5) * size).requires_grad_(), (draw(2, 4, 5, seed=1) * size).requires_grad_()
    (alignment.score(q, k).softmax(-1)[..., 0].sum() + alignment.elementwise(q[:, :1], k).sum()).backward()
    for value in (q, k, *alignment.parameters()):
        assert value.grad is not None and torch.isfinite(value.grad).all()


@pytest.mark.parametrize("kind", ALL)
def test_it_fits_the_seam(kind):
    alignment = seeded(kind, 4)
    q, k, v = draw(2, 3, 5, 4), draw(2, 3, 6, 4, seed=1), draw(2, 3, 6, 4, seed=2)
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    mask[1, ..., 4:] = False
    with torch.no_grad():
        weights = alignment.score(q, k).masked_fill(~mask, float("-inf")).softmax(-1)
        context = attend(nn.Module(), q, k, v, mask=mask, alignment=alignment)
        assert torch.allclose(context, weights @ v, atol=1e-5)
        seen = AttentionCall(nn.Module(), q, k, v, mask=mask, alignment=alignment).weights()
        assert torch.allclose(seen, weights, atol=1e-6)


@pytest.mark.parametrize("kind", WITH_W)
def test_queries_and_keys_of_different_sizes(kind):
    alignment = seeded(kind, 4, 6)
    assert alignment.score(draw(2, 3, 4), draw(2, 5, 6)).shape == (2, 3, 5)
    assert alignment.elementwise(draw(2, 1, 4), draw(2, 5, 6)).shape[:2] == (2, 5)


@pytest.mark.parametrize("kind", [Dot, ScaledDot, Cosine])
def test_equal_sizes_are_demanded_without_a_matrix(kind):
    with pytest.raises(ConfigError, match=r"dim 4 and key_dim 6 differ.*general"):
        kind(4, 6)


@pytest.mark.parametrize("kind", ALL)
def test_shape_mistakes_name_the_axis(kind):
    alignment = kind(4)
    for q, k, message in (
        (draw(2, 3, 5), draw(2, 3, 4), r"query: .*D=4, got \(2, 3, 5\)"),
        (draw(2, 3, 4), draw(2, 3, 5), r"key: .*E=4, got \(2, 3, 5\)"),
        (draw(4), draw(2, 4), r"query: .*\(4,\)"),
        (draw(2, 3, 4), draw(3, 3, 4), r"leading axes of query \(2,\) and key \(3,\)"),
    ):
        with pytest.raises(AtlasError, match=message) as error:
            alignment.score(q, k)
        assert "\n" not in str(error.value)
    with pytest.raises(AtlasError, match="Q=2 must be 1 or the number of keys K=3"):
        alignment.elementwise(draw(2, 2, 4), draw(2, 3, 4))


def test_activations_and_bad_values():
    q, k = draw(2, 3), draw(4, 3, seed=1)
    sigmoid = seeded(ActivatedGeneral, 3, activation="sigmoid")
    relu = seeded(ActivatedGeneral, 3)
    raw = q @ relu.weight(k).T
    assert torch.allclose(relu.score(q, k), raw.clamp(min=0)) and torch.allclose(sigmoid(q, k), raw.sigmoid())
    assert not hasattr(relu, "factor")
    with pytest.raises(ConfigError, match=r"activation: 'rleu'.*relu"):
        ActivatedGeneral(3, activation="rleu")
    with pytest.raises(ConfigError, match="layout: 'wrong'"):
        Dot(3, layout="wrong")
    with pytest.raises(ConfigError, match="init: 'zero'"):
        GeneralKQ(3, init="zero")


def test_the_published_order_of_axes_is_where_the_code_has_it():
    swapped = {kind.__name__: set(kind.swapped_in) for kind in ALL if kind.swapped_in}
    assert swapped == {
        "GeneralQK": {"scan"},
        "GeneralKQ": {"m4c"},
        "BiasedGeneralQK": {"scan"},
        "BiasedGeneralKQ": {"scan", "m4c"},
        "ActivatedGeneral": {"scan"},
    }
    assert not GeneralQK(3).swaps_axes("scan") and GeneralQK(3, layout="published").swaps_axes("scan")
    assert not GeneralQK(3, layout="published").swaps_axes("mac")
    # Swapped, the bias of K(WQ + b) is constant over what softmax runs over: biased* becomes general*.
    q, k = draw(2, 4, 5), draw(2, 4, 5, seed=1)
    biased = seeded(BiasedGeneralKQ, 5)
    general = GeneralKQ(5)
    general.weight.weight.data.copy_(biased.weight.weight)
    a, b = SwappedSelf(biased).score(q, k), SwappedSelf(general).score(q, k)
    assert torch.allclose(a.softmax(-1), b.softmax(-1), atol=1e-6)
    assert torch.equal(a[0, 1, 2], biased.score(q, k)[0, 2, 1])
    with pytest.raises(AtlasError, match="Q=4 and K=3"):
        SwappedSelf(biased).score(q, k[:, :3])


def test_every_yaml_builds(root):
    files = sorted((root / "conf/alignment").glob("*.yaml"))
    assert len(files) >= 8
    titles = set()
    for file in files:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert config["name"] == file.stem
        titles.add(config["title"])
        built = build_alignment(config, 6)
        assert isinstance(built, Alignment) and built.score(draw(2, 3, 6), draw(2, 4, 6)).shape == (2, 3, 4)
    assert {"general*", "biased general†", "cosine similarity", "dot product"} <= titles
    one, two = (build_alignment(config, 6) for _ in range(2))
    assert one is not two


def test_building_reports_mistakes_in_one_line():
    assert isinstance(build_alignment(None, 4), ScaledDot)
    dot = Dot(4)
    assert build_alignment(dot, 4) is dot
    target = "attention_atlas.alignments.general_qk.GeneralQK"
    for config, message in (
        ({"name": "x"}, "_target_ is missing"),
        ({"_target_": target, "name": "x", "rank": 2}, "x: .*rank"),
        ({"_target_": target, "layout": "odd"}, "layout: 'odd'"),
        ({"_target_": "attention_atlas.alignments.nothing.Nothing"}, "nothing"),
        ({"_target_": "torch.nn.Bilinear", "in1_features": 1}, "unexpected keyword argument"),
        ({"_target_": "builtins.dict"}, "dict is not a subclass of Alignment"),
    ):
        with pytest.raises(ConfigError, match=message) as error:
            build_alignment(config, 4)
        assert "\n" not in str(error.value)
