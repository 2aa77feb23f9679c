"""Knock-out: nothing blocked is the plain model, everything blocked a model without the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import vlm_tiny as tiny

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.samples import samples_of
from attention_atlas.studies.vlm_phases.knockout import (
    Block,
    block_log_probs,
    decoder_call,
    knocked_out,
    text_log_prob,
    windows,
)

LAST = tiny.LAYERS - 1


def prepared(name: str, root: Path):
    loaded = tiny.MAKERS[name]()
    corpus = tiny.corpus(root)
    samples = samples_of(corpus, corpus.examples)
    inputs = loaded.batch(samples)
    return loaded, samples, inputs, loaded.text_spans(samples), loaded.roles(inputs)


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_nothing_blocked_is_the_plain_model(name: str, tmp_path: Path) -> None:
    loaded, samples, inputs, spans, roles = prepared(name, tmp_path)
    plain = [total for total, _ in loaded.log_prob(samples, end=False)]
    call = decoder_call(loaded, inputs)
    assert np.allclose(text_log_prob(loaded, call, inputs, spans, roles), plain, atol=1e-4)
    # Queries of the image exist in the prompt only: a block without a key changes nothing.
    nothing = [["text" if r == "image" else r for r in row] for row in roles]
    block = Block("text", "image", 0, LAST)
    assert np.allclose(text_log_prob(loaded, call, inputs, spans, nothing, block), plain, atol=1e-4)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("name", tiny.MAKERS)
def test_everything_blocked_is_a_model_without_the_image(
    name: str, implementation: str, tmp_path: Path
) -> None:
    """The text's positions keep their numbers; the image's are taken out of the sequence."""
    loaded, _, inputs, spans, roles = prepared(name, tmp_path)
    loaded.model.set_attn_implementation(implementation)
    call = decoder_call(loaded, inputs)
    blocked = text_log_prob(loaded, call, inputs, spans, roles, Block("text", "image", 0, LAST))
    for b, (row, (start, stop)) in enumerate(zip(roles, spans)):
        kept = [s for s, r in enumerate(row) if r not in ("image", "pad")]
        with torch.no_grad():
            out = loaded.language_model(
                inputs_embeds=call["inputs_embeds"][b : b + 1, kept],
                position_ids=torch.tensor([kept]),
                # Without a mask transformers takes a jump in the positions for the start of another sequence.
                attention_mask=torch.ones(1, len(kept), dtype=torch.long),
                use_cache=False,
            ).last_hidden_state[0]
            log = loaded.unembed(out, normalise=False).log_softmax(-1)
        ids = inputs["input_ids"][b]
        total = sum(float(log[kept.index(s - 1), ids[s]]) for s in range(start, stop))
        assert blocked[b] == pytest.approx(total, abs=1e-4)


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_blocked_everywhere_no_image_matters_and_in_part_it_does(name: str, tmp_path: Path) -> None:
    loaded, _, inputs, spans, roles = prepared(name, tmp_path)
    own = decoder_call(loaded, inputs)
    embeds = own["inputs_embeds"].clone()
    other = own | {"inputs_embeds": embeds}
    image = torch.tensor([[r == "image" for r in row] for row in roles])
    embeds[image] = torch.randn(embeds[image].shape, generator=torch.Generator().manual_seed(5))
    full, part = Block("text", "image", 0, LAST), Block("text", "image", 0, LAST - 1)

    def score(call: dict, block: Block) -> np.ndarray:
        return np.array(text_log_prob(loaded, call, inputs, spans, roles, block))

    assert np.allclose(score(own, full), score(other, full), atol=1e-4)
    assert np.abs(score(own, part) - score(other, part)).max() > 1e-1


@pytest.mark.parametrize("name", tiny.MAKERS)
def test_layers_before_a_block_are_taken_from_the_plain_run(name: str, tmp_path: Path) -> None:
    """Against whole forward passes, and the layers that are skipped do not run."""
    loaded, _, inputs, spans, roles = prepared(name, tmp_path)
    call = decoder_call(loaded, inputs)
    blocks = windows(["text → image", "image → image"], tiny.LAYERS, 1)
    ran: list[int] = []
    for i, layer in enumerate(loaded.decoder_layers):
        layer.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i))
    found = block_log_probs(loaded, call, inputs, spans, roles, blocks)
    whole = list(range(tiny.LAYERS))
    assert ran == whole + [i for block in blocks for i in whole[block.first :]]
    for row, block in zip(found, [None, *blocks], strict=True):
        assert row == text_log_prob(loaded, call, inputs, spans, roles, block)
    assert all("forward" not in vars(layer) for layer in loaded.decoder_layers)


def test_a_layers_own_forward_is_restored(tmp_path: Path) -> None:
    """As accelerate gives one to each layer of a model on several devices."""
    loaded, _, inputs, spans, roles = prepared("llava", tmp_path)
    call = decoder_call(loaded, inputs)
    first, blocks = loaded.decoder_layers[0], [Block("text", "image", 1, LAST)]
    plain = block_log_probs(loaded, call, inputs, spans, roles, blocks)
    usual = first.forward
    first.forward = own = lambda *args, **kwargs: usual(*args, **kwargs)
    assert block_log_probs(loaded, call, inputs, spans, roles, blocks) == plain
    assert vars(first)["forward"] is own


def test_windows() -> None:
    names = [b.name for b in windows(["text → image"], 4, 2)]
    assert names == [f"text → image | {w}" for w in ("0-1", "1-2", "2-3", "0-3")]
    assert [b.name for b in windows(["image → image"], 4, 4)] == ["image → image | 0-3"]
    with pytest.raises(ConfigError, match="'text → imge' is not a block; did you mean 'text → image'"):
        windows(["text → imge"], 4, 2)
    with pytest.raises(ConfigError, match="the model has 4 layers"):
        windows(["text → image"], 4, 5)


def test_hooks_are_gone_afterwards_and_flash_is_refused(tmp_path: Path) -> None:
    loaded, _, inputs, spans, roles = prepared("llava", tmp_path)
    call = decoder_call(loaded, inputs)
    before = text_log_prob(loaded, call, inputs, spans, roles)
    text_log_prob(loaded, call, inputs, spans, roles, Block("text", "image", 0, LAST))
    assert text_log_prob(loaded, call, inputs, spans, roles) == before
    loaded.text_config._attn_implementation_internal = "flash_attention_2"
    with (
        pytest.raises(AtlasError, match="'flash_attention_2' cannot be captured"),
        knocked_out(loaded, roles, Block("text", "image", 0, 0)),
    ):
        text_log_prob(loaded, call, inputs, spans, roles)
