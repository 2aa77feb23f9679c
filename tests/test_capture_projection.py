"""Norms are refused where the context does not reach the output projection as it is."""

import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture
from attention_atlas.capture.seam import attend
from attention_atlas.errors import AtlasError


class Gated(nn.Module):
    attention_kind, layer_index = "gated", 0

    def __init__(self, gate):
        super().__init__()
        self.gate, self.o_proj = gate, nn.Linear(8, 8)

    def forward(self, x_BTD, pieces=1):
        parts = []
        for x in x_BTD.chunk(pieces, 1):
            q = x.unflatten(-1, (2, 4)).transpose(1, 2)
            parts.append(attend(self, q, q, q).transpose(1, 2).flatten(2))
        return self.o_proj(torch.cat(parts, 1) * (x_BTD.sigmoid() if self.gate else 1))


def test_a_gate_before_the_projection_is_an_error_for_norms_only():
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    model = Gated(gate=True).eval()
    Capture(model, ["entropy"])(x)
    with pytest.raises(
        AtlasError, match=r"its context is changed before its output projection \(a gate, a norm\)"
    ):
        Capture(model, ["head_norm"])(x)
    assert not model.o_proj._forward_pre_hooks
    assert Capture(model, ["head_norm"], check=False)(x)


@pytest.mark.parametrize("pieces", [1, 2])
def test_a_context_that_arrives_whole_or_in_pieces_is_fine(pieces):
    x = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))
    model = Gated(gate=False).eval()
    capture = Capture(model, ["head_norm"])
    for _ in range(2):
        assert len(capture(x, pieces=pieces)) == pieces
        assert not model.o_proj._forward_pre_hooks
