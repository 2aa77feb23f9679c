"""Norm-based attention of chosen rows against the explicit (H,T,D) tensor, grouped queries too; sinks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_tiny as tiny

from attention_atlas.capture.checks import validate
from attention_atlas.errors import AtlasError
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.studies.vlm_phases.measure import measure
from attention_atlas.studies.vlm_phases.norm_attention import (
    attention_names,
    chosen_rows,
    even_share,
    mass_by_group,
    sinks,
)


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_norm_is_that_of_the_explicit_tensor(name: str, tmp_path: Path) -> None:
    loaded = tiny.MAKERS[name]()
    corpus = tiny.corpus(tmp_path)
    samples = samples_of(corpus, corpus.examples)
    inputs = loaded.batch(samples)
    roles, spans = loaded.roles(inputs), loaded.text_spans(samples)
    found = measure(loaded, inputs, roles, spans, lens=())
    values: dict[int, torch.Tensor] = {}
    for layer, module in enumerate(loaded.decoder_layers):
        module.self_attn.v_proj.register_forward_hook(lambda m, a, out, at=layer: values.update({at: out}))
    loaded.model.set_attn_implementation("eager")
    with torch.no_grad():
        out = loaded.model(**inputs, output_attentions=True)
    attention = out.attentions if name == "llava" else out.language_model_outputs.attentions
    heads, size = 4, 8
    for layer, module in enumerate(loaded.decoder_layers):
        weight_DHM = module.self_attn.o_proj.weight.T.reshape(heads, size, -1)
        for b, (row, span) in enumerate(zip(roles, spans)):
            v_THD = values[layer][b].reshape(-1, 2, size).repeat_interleave(2, dim=1)  # a key head serves two
            f_HTM = torch.einsum("thd,hdm->htm", v_THD, weight_DHM)
            for r, at in enumerate(chosen_rows(row, *span)):
                alpha_HT = attention[layer][b, :, at]
                naive_T = (alpha_HT[..., None] * f_HTM).sum(0).norm(dim=-1).detach()
                assert np.allclose(found.norm[b, layer, r], naive_T, atol=1e-5)
                assert np.allclose(found.attention[b, layer, r], alpha_HT.mean(0), atol=1e-5)


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_what_is_captured_is_what_the_model_uses(name: str, tmp_path: Path) -> None:
    """α·V is the module's own context, the logits are unchanged, and random weights change them."""
    loaded = tiny.MAKERS[name]()
    corpus = tiny.corpus(tmp_path)
    inputs = loaded.batch(samples_of(corpus, corpus.examples[:2]))
    checked = validate(
        loaded.model,
        lambda: loaded.model(**inputs, use_cache=False).logits,
        layers=attention_names(loaded),
        visible_BT=inputs["attention_mask"],
    )
    assert checked == attention_names(loaded) and len(checked) == tiny.LAYERS


def test_rows_are_last_image_last_prompt_and_last_text() -> None:
    roles = ["bos", "text", "image", "image", "text", "text", "text", "pad"]
    assert chosen_rows(roles, 5, 7) == [3, 4, 6]
    for bad in ((["bos", "text", "text"], 1, 2), (roles, 5, 5), (roles, 0, 3)):
        with pytest.raises(AtlasError, match="image, prompt and text"):
            chosen_rows(*bad)


def test_sinks_and_mass_by_hand() -> None:
    # One layer pair, one row, ten keys of which eight are seen: even share 1/8, five times that is 0.625.
    attn = np.zeros((2, 1, 10))
    attn[0, 0, :8] = [0.7, 0.1, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02]
    attn[1, 0, :8] = [0.1, 0.7, 0.1, 0.02, 0.02, 0.02, 0.02, 0.02]
    assert sinks(attn).nonzero()[0].tolist() == [0, 1]  # each in half of the layers
    assert sinks(attn, layers=1.0).sum() == 0
    assert sinks(attn, times=6).sum() == 0
    image, text = np.arange(10) < 4, np.arange(10) >= 4
    found = mass_by_group(attn, np.stack([image, text]))
    assert np.allclose(found[:, 0], [[0.92, 0.08], [0.92, 0.08]])
    kept = mass_by_group(attn, np.stack([image, text]), ~sinks(attn))
    assert np.allclose(kept[0, 0], [0.12 / 0.2, 0.08 / 0.2])
    assert np.allclose(even_share(attn, np.stack([image, text])), 0.5)
    nothing = mass_by_group(attn, np.stack([image, text]), np.arange(10) >= 8)
    assert np.isnan(nothing).all()
