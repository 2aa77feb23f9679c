"""The silent ways in which attention tools go wrong, each seen to be caught."""

import capture_models
import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture, validate
from attention_atlas.capture.patches import patch_order
from attention_atlas.capture.routes import hooks
from attention_atlas.capture.routes.interface import split_mask
from attention_atlas.capture.seam import attend, current
from attention_atlas.errors import AtlasError


def test_sdpa_gives_no_attentions_but_a_capture_does():
    model, inputs = capture_models.tiny("bert")
    assert model.config._attn_implementation == "sdpa"
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    assert not [a for a in output.attentions or () if a is not None]
    (kind,) = Capture(model, ["attn"])(**inputs).values()
    assert kind.attn.shape == (2, 2, 4, 7, 7)


def test_attention_that_is_computed_otherwise_is_refused_by_name(monkeypatch):
    from transformers import AttentionInterface

    sdpa = AttentionInterface._global_mapping["sdpa"]

    def sharper_in_layer_1(module, query, *rest, **named):
        return sdpa(module, query * (1 + module.layer_idx), *rest, **named)

    model, inputs = capture_models.tiny("llama")
    monkeypatch.setitem(AttentionInterface._global_mapping, "sdpa", sharper_in_layer_1)
    message = r"model\.layers\.1\.self_attn: check 'weights times values'"
    with pytest.raises(AtlasError, match=message):
        validate(model, lambda: model(**inputs))
    with pytest.raises(AtlasError, match=message):
        Capture(model, ["lse"])(**inputs)
    for layers in ("*layers.0*", ["*", "!*layers.1*"]):
        (kind,) = Capture(model, ["lse"], layers=layers)(**inputs).values()
        assert kind.layers == [0]
        assert len(validate(model, lambda: model(**inputs), layers=layers)) == 1
    assert Capture(model, ["lse"], check=False)(**inputs)


def test_hooks_on_the_wrong_tensor_fail_the_check(monkeypatch):
    model, inputs = capture_models.tiny("vilt")
    monkeypatch.setitem(hooks.KNOWN, "ViltSelfAttention", hooks.Hooked(mask_position=1, query="key"))
    with pytest.raises(AtlasError, match=r"layer\.0\.attention\.attention: check 'weights times values'"):
        validate(model, lambda: capture_models.run(model, inputs))


def test_a_forgotten_mask_fails_the_check(monkeypatch):
    model, inputs = capture_models.tiny("vilt")
    monkeypatch.setitem(hooks.KNOWN, "ViltSelfAttention", hooks.Hooked(mask_position=7, mask="mask"))
    with pytest.raises(AtlasError, match="check 'weights times values'"):
        validate(model, lambda: capture_models.run(model, inputs))


def test_a_layer_that_the_model_does_not_use_is_named_and_passes(caplog):
    # LLaVA takes the last but one layer of its vision tower: what the last attends to is seen by nobody.
    import transformers as T

    torch.manual_seed(0)
    config = T.LlavaConfig(
        text_config=T.LlamaConfig(**capture_models.LLAMA),
        vision_config=T.CLIPVisionConfig(**capture_models.VISION),
        image_token_id=capture_models.IMAGE,
        vision_feature_layer=-2,
    )
    model = T.LlavaForConditionalGeneration(config).eval()
    _, inputs = capture_models.tiny("llava")
    assert len(validate(model, lambda: model(**inputs))) == 4
    assert [r.args[0] for r in caplog.records] == ["model.vision_tower.encoder.layers.1.self_attn"]


def test_a_context_that_the_module_does_not_use_fails_the_check():
    class Deaf(nn.Module):
        attention_kind, layer_index = "deaf", 0

        def forward(self, x):
            return x + 0 * attend(self, x, x, x)

    model = Deaf()
    with pytest.raises(AtlasError, match="Deaf: check 'effect'"):
        validate(model, lambda: model(torch.ones(1, 1, 2, 2)))


def test_rows_that_do_not_sum_to_one_fail_the_check():
    class Odd(nn.Module):
        attention_kind, layer_index = "odd", 0

        def forward(self, x):
            return attend(self, x, x, x, alignment=self)

        def score(self, q, k):
            return (q @ k.mT) * float("nan")

    with pytest.raises(AtlasError, match="check 'plain output': is not finite"):
        validate(Odd(), lambda: Odd()(torch.ones(1, 1, 2, 2)))
    model = Odd()
    # Plain runs do not call it, so that only the check inside can fail.
    with pytest.raises(AtlasError, match="check 'rows': do not sum to 1"):
        validate(model, lambda: model(torch.ones(1, 1, 2, 2)) if _recording() else torch.zeros(1))
    model.score = lambda q, k: torch.zeros(1, 1, 3, 3)
    with pytest.raises(AtlasError, match=r"check 'shape': weights are \(1, 1, 3, 3\), expected"):
        validate(model, lambda: model(torch.ones(1, 1, 2, 2)) if _recording() else torch.zeros(1))


def _recording():
    return current() is not None


def test_no_attention_seen_is_an_error():
    with pytest.raises(AtlasError, match="Linear: no attention passed through the capture"):
        Capture(nn.Linear(2, 2), ["lse"])(torch.ones(1, 2))


def test_additive_masks_are_split_exactly():
    low = torch.finfo(torch.float32).min
    additive = torch.tensor([[0.0, low, 0.5], [low, low, low], [0.0, 0.0, 0.0]])[None, None]
    query, key = torch.randn(1, 1, 3, 2), torch.randn(1, 1, 3, 2)
    mask, bias, kept = split_mask(additive, query)
    # A row where everything is hidden by the lowest number attends uniformly in eager code.
    assert mask[0, 0].tolist() == [[True, False, True], [True] * 3, [True] * 3]
    eager = (query @ key.mT + additive).softmax(-1)
    ours = (kept @ key.mT + bias).masked_fill(~mask, float("-inf")).softmax(-1)
    assert torch.allclose(eager, ours, atol=1e-6)
    # With a sink such a row sees the sink alone.
    assert not split_mask(additive, query, sink=True)[0][0, 0, 1].any()
    plain, none, same = split_mask(torch.tensor([[[[0.0, low]]]]), query)
    assert none is None and plain.tolist() == [[[[True, False]]]] and same is query


def test_rows_that_see_nothing_are_uniform_as_in_eager_code():
    """They are padding, but statistics over all queries must not be garbage there."""
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaModel(
        transformers.LlamaConfig(**capture_models.LLAMA, attn_implementation="eager")
    ).eval()
    inputs = {"input_ids": capture_models.IDS, "attention_mask": capture_models.LEFT}
    with torch.no_grad():
        eager = torch.stack(model(**inputs, output_attentions=True).attentions, 1)
    assert torch.allclose(eager[0, :, :, 0], torch.full((7,), 1 / 7))
    for backend in ("fused", "materialised"):
        (kind,) = Capture(model, ["attn", "rows", "entropy"], rows=[0], backend="materialised")(
            **inputs
        ).values()
        assert torch.allclose(kind.attn, eager, atol=1e-6)
        assert torch.allclose(kind.rows[:, :, :, 0], eager[:, :, :, 0], atol=1e-6)
        (kind,) = Capture(model, ["entropy"], backend=backend)(**inputs).values()
        assert torch.allclose(kind.entropy, -torch.xlogy(eager, eager).sum(-1), atol=1e-5)


def test_an_error_inside_leaves_the_model_as_it_was():
    model, _ = capture_models.tiny("bert")
    with pytest.raises(RuntimeError), Capture(model, ["lse"]):
        raise RuntimeError
    assert model.config._attn_implementation == "sdpa" and not _recording()
    assert not any(m._forward_pre_hooks for m in model.modules() if not hasattr(m, "config"))


def test_a_new_forward_pass_starts_over():
    model, inputs = capture_models.tiny("gpt2")
    with torch.no_grad(), Capture(model, ["lse"]) as capture:
        model(**inputs)
        model(input_ids=inputs["input_ids"][:, :3])
    captured = capture.result()
    assert list(captured) == ["transformer.h.*.attn"]
    assert captured["transformer.h.*.attn"].lse.shape == (2, 2, 4, 3)


def test_vilt_patches_come_in_random_order_and_are_put_back():
    model, inputs = capture_models.tiny("vilt")
    taken = []
    handle = model.embeddings.register_forward_hook(lambda _, __, output: taken.append(output[0]))
    try:
        with torch.no_grad():
            torch.manual_seed(1)
            model(**inputs)
            torch.manual_seed(2)
            model(**inputs)
            assert not torch.allclose(taken[0], taken[1])  # the trap
            state = torch.random.get_rng_state()
            with patch_order(model, seed=5) as patches:
                model(**inputs)
            assert torch.equal(state, torch.random.get_rng_state())
            with patch_order(model, seed=5):
                model(**inputs)
            assert torch.equal(taken[2], taken[3])
    finally:
        handle.remove()
    assert "visual_embed" not in vars(model.embeddings)
    # Each patch's embedding is its projection plus a constant (position embeddings are 0 before training).
    with torch.no_grad():
        projected_BDHW = model.embeddings.patch_embeddings(inputs["pixel_values"])
        constant_D = model.embeddings.token_type_embeddings.weight[1]
    found = patches.grid(taken[2][:, 8:].transpose(1, 2))
    expected = projected_BDHW + constant_D[:, None, None]
    assert torch.allclose(found[0], expected[0], atol=1e-6)
    assert torch.allclose(found[1, :, :2], expected[1, :, :2], atol=1e-6)
    assert found[1, :, 2].isnan().all()  # pixel_mask hides the third row of the second image
    roles = patches.roles([["text"] * 7] * 2)
    assert roles[0] == ["text"] * 7 + ["special"] + ["image"] * 9
    assert roles[1].count("image") == 6 and roles[1].count("pad") == 3
    with pytest.raises(AtlasError, match="leave out the text"):
        patches.grid(taken[2][:, 7:].transpose(1, 2))


def test_patch_order_reports_when_it_does_not_apply():
    with (
        pytest.raises(AtlasError, match="other models keep their patches in order"),
        patch_order(nn.Linear(1, 1)),
    ):
        pass
    model, _ = capture_models.tiny("vilt")
    with patch_order(model) as patches, pytest.raises(AtlasError, match="has not run"):
        patches.grid(torch.zeros(1, 1))
