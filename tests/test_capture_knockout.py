"""Knock-out: a cut edge has no attention, its row is renormalised, all else is as before."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
import vlm_tiny
from capture_families import family
from torch import Tensor

from attention_atlas.capture import Capture, cut_edges, knocked_out, roles_of
from attention_atlas.capture.knockout import Edges
from attention_atlas.errors import AtlasError, ConfigError

FAMILIES = ("llava", "qwen2_vl", "internvl", "gemma3", "paligemma", "instructblip", "mllama", "idefics")
CUTS = [("text", "image"), ("image", "text"), ("answer", "image"), ("answer", "prompt")]


def logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    with torch.no_grad():
        return model(**inputs, use_cache=False).logits


def edges_of(model: Any, inputs: dict[str, Any], query: str, key: str) -> Edges:
    return cut_edges(roles_of_text(model, inputs), query, key, inputs["input_ids"].shape[1] - 1)


def roles_of_text(model: Any, inputs: dict[str, Any]) -> list[list[str]]:
    """Idefics has no position for an image."""
    text = {n: v for n, v in inputs.items() if not n.startswith(("pixel", "image_"))}
    return roles_of(text if model.config.model_type == "idefics" else inputs, model.config)


@pytest.fixture(params=["sdpa", "eager"])
def implementation(request: pytest.FixtureRequest) -> str:
    return request.param


@functools.cache
def lively(name: str) -> tuple[Any, dict[str, Any]]:
    """Weights that start as almost zero (gates, learned queries, BLIP's tower) would hide the image."""
    model, inputs = copy.deepcopy(family(name))
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.detach().abs().max() < 1e-6:
            torch.nn.init.normal_(parameter, std=0.5)
    return model, inputs


def prepared(name: str, implementation: str = "sdpa") -> tuple[Any, dict[str, Any]]:
    model, inputs = lively(name)
    model.set_attn_implementation(implementation)
    return model, inputs


def test_edges_by_hand() -> None:
    roles = [["pad", "bos", "image", "image", "text", "special", "text", "text"]]

    def rows(query: str, key: str) -> dict[int, list[int]]:
        found = cut_edges(roles, query, key, start=6).within_BSS[0]
        return {q: row.nonzero()[:, 0].tolist() for q, row in enumerate(found) if row.any()}

    assert rows("text", "image") == {q: [2, 3] for q in (1, 4, 5, 6, 7)}
    assert rows("image", "text") == {2: [4, 5, 6, 7], 3: [4, 5, 6, 7]}
    # Position 5 predicts the first token of the answer. A position sees itself.
    assert rows("answer", "image") == {q: [2, 3] for q in (5, 6, 7)}
    assert rows("answer", "prompt") == {5: [4], 6: [4, 5], 7: [4, 5]}
    assert rows("prompt", "image") == {q: [2, 3] for q in (1, 4)}
    assert rows("image", "image") == {2: [3], 3: [2]}
    assert rows("image", "answer") == {2: [6, 7], 3: [6, 7]}
    assert cut_edges(roles, "text", "image").across_BS[0].int().tolist() == [0, 1, 0, 0, 1, 1, 1, 1]
    assert not cut_edges(roles, "image", "text").across_BS.any()
    # Without BOS the first position takes its part; it is not the same in every row.
    two = cut_edges([["text", "image", "text"], ["pad", "text", "text"]], "text", "text").within_BSS
    assert two.nonzero().tolist() == [[0, 0, 2], [1, 1, 2]]
    roles = [["image", "text", "text", "text"]] * 2
    starts = cut_edges(roles, "answer", "image", [2, 3]).within_BSS
    assert starts[:, :, 0].int().tolist() == [[0, 1, 1, 1], [0, 0, 1, 1]]


def test_names_and_starts_are_checked() -> None:
    with pytest.raises(ConfigError, match="'txt' is not a part of the sequence; did you mean 'text'"):
        cut_edges([["text"]], "txt", "image")
    with pytest.raises(ConfigError, match="answer → image: needs start="):
        cut_edges([["text"]], "answer", "image")


@pytest.mark.parametrize("name", FAMILIES)
def test_without_edges_to_the_image_no_text_depends_on_it(name: str, implementation: str) -> None:
    """In all layers, for padded batches with several images; with the edges every text does."""
    model, inputs = prepared(name, implementation)
    roles = roles_of_text(model, inputs)
    text_BS = torch.tensor([[role not in ("image", "pad") for role in row] for row in roles])
    pixels = {n: -3 * v for n, v in inputs.items() if n.startswith("pixel") and v.is_floating_point()}
    edges = cut_edges(roles, "text", "image")
    own, other = logits(model, inputs), logits(model, inputs | pixels)
    assert (own - other).abs()[text_BS].max() > 1e-5
    with knocked_out(model, edges):
        cut, cut_other = logits(model, inputs), logits(model, inputs | pixels)
    assert torch.equal(cut[text_BS], cut_other[text_BS])
    assert (own - cut).abs()[text_BS].max() > 1e-5
    assert torch.equal(logits(model, inputs), own), "a hook has stayed"


@pytest.mark.parametrize(("query", "key"), CUTS)
@pytest.mark.parametrize("name", ["llava", "qwen2_vl", "gemma3", "mllama"])
def test_a_cut_edge_has_no_attention_and_all_else_is_unchanged(
    name: str, query: str, key: str, implementation: str
) -> None:
    """In one layer, whose queries and keys are those of the plain model: attention and context."""
    model, inputs = prepared(name, implementation)
    edges, layer = edges_of(model, inputs, query, key), 1
    kept, plain = attention_of(model, inputs), attention_of(model, inputs, edges, [layer])
    assert kept.keys() == plain.keys() and any(kept[n][1] == "cross" for n in kept) == (name == "mllama")
    for module, (before, part, context) in kept.items():
        after, _, context_after = plain[module]
        if f".{layer}." not in module:
            assert torch.equal(after, before) and torch.equal(context_after, context)
            continue
        barred = (
            edges.within_BSS if part == "decoder" else edges.across_BS[..., None].expand(before[:, 0].shape)
        )[:, None]
        assert (after.masked_select(barred) == 0).all()
        left = before.masked_fill(barred, 0)
        wanted = left / left.sum(-1, keepdim=True).clamp(min=1e-30)
        torch.testing.assert_close(after, wanted, atol=1e-6, rtol=0)
        uncut = ((before > 0) & barred).sum(-1) == 0  # (B,H,Q)
        assert uncut.any() and (part == "cross" or not uncut.all() or key == "text")
        rows_BQHE = (
            context.unflatten(-1, (before.shape[1], -1)),
            context_after.unflatten(-1, (before.shape[1], -1)),
        )
        same = uncut.transpose(1, 2)
        assert torch.equal(rows_BQHE[0][same], rows_BQHE[1][same])
        if not uncut.all():
            assert (rows_BQHE[0] - rows_BQHE[1]).abs()[~same].max() > 1e-6


def attention_of(
    model: Any, inputs: dict[str, Any], edges: Edges | None = None, layers: list[int] | None = None
) -> dict[str, tuple[Tensor, str, Tensor]]:
    """{module: (its attention, decoder | cross, what its output projection reads)} of the language model."""
    contexts: dict[str, Tensor] = {}
    capture = Capture(model, ["attn"], layers=["decoder", "cross"])
    handles = [
        module.o_proj.register_forward_pre_hook(lambda _, args, name=name: contexts.update({name: args[0]}))
        for name, module in model.named_modules()
        if hasattr(module, "o_proj")
    ]

    def run() -> Any:
        if edges is None:
            return model(**inputs, use_cache=False)
        with knocked_out(model, edges, layers):
            return model(**inputs, use_cache=False)

    captured = capture.run(run)
    try:
        with torch.no_grad():
            run()  # without the capture, whose contexts differ by rounding
    finally:
        for handle in handles:
            handle.remove()
    found = {}
    for kind in captured.values():
        for n, name in enumerate(kind.names):
            if name in contexts:
                found[name] = (kind.attn[:, n], capture.sites.part(name), contexts[name])
    return found


def test_one_head_alone() -> None:
    model, inputs = prepared("llava")
    edges = edges_of(model, inputs, "text", "image")
    captured = Capture(model, ["attn"], layers="decoder").run(
        lambda: cut_pass(model, inputs, edges, [0], [2])
    )
    (kind,) = captured.values()
    cut_BHQK = edges.within_BSS[:, None].expand(-1, 4, -1, -1)
    sums_H = (kind.attn[:, 0] * cut_BHQK).sum((0, 2, 3))
    assert sums_H[2] == 0 and (sums_H[[0, 1, 3]] > 0.1).all()
    whole = cut_pass(model, inputs, edges, [0]).logits
    assert not torch.equal(captured.output.logits, whole)
    torch.testing.assert_close(cut_pass(model, inputs, edges, [0], [0, 1, 2, 3]).logits, whole)
    assert torch.equal(cut_pass(model, inputs, edges, [0], []).logits, logits(model, inputs))
    with pytest.raises(ConfigError, match=r"head 4 is outside 0\.\.3"):
        cut_pass(model, inputs, edges, [0], [4])


def cut_pass(model: Any, inputs: dict[str, Any], edges: Edges, layers: Any = None, heads: Any = None) -> Any:
    with knocked_out(model, edges, layers, heads), torch.no_grad():
        return model(**inputs, use_cache=False)


def test_blocks_nest_in_any_order() -> None:
    model, inputs = prepared("llava", "eager")
    first, second = edges_of(model, inputs, "text", "image"), edges_of(model, inputs, "image", "text")
    both = Edges(first.within_BSS | second.within_BSS, first.across_BS)
    wanted = cut_pass(model, inputs, both).logits
    for outer, inner in ((first, second), (second, first)):
        with knocked_out(model, outer):
            torch.testing.assert_close(cut_pass(model, inputs, inner).logits, wanted)


@pytest.mark.parametrize("name", vlm_tiny.MAKERS)
def test_against_a_mask_handed_to_the_layers(name: str, implementation: str) -> None:
    """The usual way to cut: replace the mask of a LLaMA layer."""
    loaded = vlm_tiny.MAKERS[name]()
    loaded.model.set_attn_implementation(implementation)
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(2, 9, 32, generator=generator)
    roles = [["bos", *["image"] * 4, *["text"] * 4], [*["pad"] * 2, "bos", *["image"] * 3, *["text"] * 3]]
    real = torch.tensor([[role != "pad" for role in row] for row in roles])
    edges = cut_edges(roles, "text", "image")

    def mask(module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        seen = (
            torch.ones(9, 9, dtype=torch.bool).tril() & real[:, None] & ~edges.within_BSS
            | torch.eye(9).bool()
        )
        seen = seen[:, None]
        if implementation == "eager":
            seen = torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
        return args, kwargs | {"attention_mask": seen}

    def run() -> Tensor:
        with torch.no_grad():
            return loaded.language_model(inputs_embeds=embeds, attention_mask=real.long()).last_hidden_state[
                real
            ]

    with knocked_out(loaded.model, edges, [1, 2]):
        found = run()
    handles = [loaded.decoder_layers[n].register_forward_pre_hook(mask, with_kwargs=True) for n in (1, 2)]
    wanted = run()
    for handle in handles:
        handle.remove()
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_gradients_pass_through_a_cut(implementation: str) -> None:
    """The derivative by an image's embeddings is zero where the text cannot read them."""
    model, inputs = prepared("llava", implementation)
    pixels = inputs["pixel_values"].clone().requires_grad_()
    edges = edges_of(model, inputs, "text", "image")
    for layers, zero in ((None, True), ([0], False)):
        with knocked_out(model, edges, layers):
            loss = model(**inputs | {"pixel_values": pixels}, use_cache=False).logits[:, -1].sum()
        (gradient,) = torch.autograd.grad(loss, pixels)
        assert (gradient.abs().max() == 0) == zero


def test_what_cannot_be_cut_is_an_error() -> None:
    model, inputs = prepared("qwen3_5")  # one layer of linear attention
    edges = edges_of(model, inputs, "text", "image")
    with pytest.raises(AtlasError, match="attention was cut in 1 of the model's 2 layers"):
        cut_pass(model, inputs, edges)
    with pytest.raises(AtlasError, match="in layers 0 no attention passed"):
        cut_pass(model, inputs, edges, [0, 1])
    cut_pass(model, inputs, edges, [1])
    model, inputs = prepared("llava")
    edges = edges_of(model, inputs, "text", "image")
    with pytest.raises(AtlasError, match="in layers 7 no attention passed"):
        cut_pass(model, inputs, edges, [7])
    with pytest.raises(AtlasError, match="did not run"), knocked_out(model, edges):
        pass
    with pytest.raises(AtlasError, match="but the edges are for a sequence of 3"):
        cut_pass(model, inputs, Edges(edges.within_BSS[:, :3, :3], edges.across_BS[:, :3]))
    with pytest.raises(AtlasError, match="the edges are for 3 sequences, the batch has 2"):
        cut_pass(model, inputs, Edges(edges.within_BSS[[0, 0, 0]], edges.across_BS[[0, 0, 0]]))
    model, inputs = prepared("idefics")
    with pytest.raises(AtlasError, match="are counted separately"):
        cut_pass(model, inputs, edges_of(model, inputs, "text", "image"), [0])
