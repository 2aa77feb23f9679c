"""How models start: bounds of the captioners' matrices, an encoder that begins near the identity, and the
spread of a text-only model's weights."""

from __future__ import annotations

import math

import pytest
import torch

from attention_atlas.models.object_relation import ObjectRelationTransformer
from attention_atlas.models.text_only import TextOnlyTransformer

WORDS, FEATURES = 12, 5
SMALL = dict(layers=2, heads=2, dim=16, inner=32)


def test_xavier_bounds_every_matrix() -> None:
    model = ObjectRelationTransformer(WORDS, FEATURES, **SMALL)
    weight = model.decoder.layers[0].feed_forward.inner.weight  # 32 × 16
    bound = math.sqrt(6 / (32 + 16))
    assert 0.9 * bound < float(weight.detach().abs().max()) <= bound


def test_encoder_init_scales_what_the_encoder_adds_and_nothing_else() -> None:
    torch.manual_seed(0)
    whole = ObjectRelationTransformer(WORDS, FEATURES, **SMALL).state_dict()
    torch.manual_seed(0)
    near = ObjectRelationTransformer(WORDS, FEATURES, **SMALL, encoder_init=0.25).state_dict()
    changed = {name for name in whole if not torch.equal(whole[name], near[name])}
    parts = ("self_attention.output.weight", "feed_forward.outer.weight")
    assert changed == {f"encoder.{i}.{part}" for i in range(2) for part in parts}
    assert all(torch.allclose(near[name], 0.25 * whole[name]) for name in changed)


@pytest.mark.parametrize("spread", [None, 0.1])
def test_initializer_range_is_the_spread_of_a_text_only_models_weights(spread: float | None) -> None:
    given = {} if spread is None else {"initializer_range": spread}
    model = TextOnlyTransformer(64, layers=1, heads=2, dim=64, max_length=64, **given)
    wanted = 0.02 if spread is None else spread  # GPT-2's own
    for weight in (model.gpt2.wte.weight, model.gpt2.h[0].attn.c_attn.weight):
        assert abs(float(weight.detach().std()) / wanted - 1) < 0.1
