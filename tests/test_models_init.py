"""How the captioning models start: bounds of their matrices, and an encoder that begins near the identity."""

from __future__ import annotations

import math

import torch

from attention_atlas.models.object_relation import ObjectRelationTransformer

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
