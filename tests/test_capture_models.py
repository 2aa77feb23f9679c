"""Captured attention of every known model class equals what its own eager code computes."""

import capture_models
import numpy as np
import pytest
import torch

from attention_atlas.capture import Capture, Groups, role_groups, roles_of_ids, validate
from attention_atlas.capture.checks import distance, tensors
from attention_atlas.errors import AtlasError

# How many attention calls return their weights when asked the models' own way; the towers of Qwen-VL and
# some of LXMERT's calls never do.
WITH_WEIGHTS = {"qwen2_vl": 2, "lxmert": 6, "clip": 4, "siglip": 4, "llava": 4, "idefics3": 4, "smolvlm": 4}
WITH_WEIGHTS |= {"instructblip_qformer": 3, "blip2_qformer": 4}


def eager_weights(model, inputs, names):
    """{module name: [weights of each call]} from the model's own eager attention, and its output."""
    found = {}
    handles = []
    for name, module in model.named_modules():
        if name in names:

            def hook(_, __, output, name=name):
                if isinstance(output, tuple) and len(output) > 1 and getattr(output[1], "ndim", 0) == 4:
                    found.setdefault(name, []).append(output[1])

            handles.append(module.register_forward_hook(hook))
    before = model.config._attn_implementation
    if model._can_set_attn_implementation():
        model.set_attn_implementation("eager")
    try:
        with torch.no_grad():
            output = capture_models.run(model, inputs, output_attentions=True)
    finally:
        for handle in handles:
            handle.remove()
        if model._can_set_attn_implementation():
            model.set_attn_implementation(before)
    return found, output


def seen_rows(weights, reference):
    """Rows that the eager code computes too: where it saw nothing at all it may attend uniformly."""
    return weights.sum(-1, keepdim=True) > 0.5


@pytest.mark.parametrize("name", capture_models.BUILDERS)
def test_attention_and_statistics_equal_the_models_own(name):
    model, inputs = capture_models.tiny(name)
    captured = Capture(model, ["attn"]).run(lambda: capture_models.run(model, inputs))
    names = [n for kind in captured.values() for n in kind.names]
    eager, _ = eager_weights(model, inputs, names)
    fused = Capture(model, ["entropy", "received", "lse"], backend="fused").run(
        lambda: capture_models.run(model, inputs)
    )
    compared = 0
    for kind, found in captured.items():
        call = int(kind.partition("#")[2] or 1) - 1
        for index, module in enumerate(found.names):
            attn = found.attn[:, index]
            if module in eager and call < len(eager[module]):
                seen = seen_rows(attn, eager[module][call])
                reference = eager[module][call].expand_as(attn)
                assert float(((attn - reference) * seen).abs().max()) <= 1e-5, (kind, module)
                compared += 1
            entropy = -torch.xlogy(attn, attn).sum(-1)
            assert float((fused[kind].entropy[:, index] - entropy).abs().max()) <= 1e-5, (kind, module)
            assert float((fused[kind].received[:, index] - attn.sum(-2)).abs().max()) <= 1e-5, (kind, module)
    assert compared >= WITH_WEIGHTS.get(name, 2)


def hooks(model):
    # transformers drops its own implementation once attentions are requested.
    return [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]


@pytest.mark.parametrize("name", capture_models.BUILDERS)
def test_capture_changes_neither_output_nor_model_and_passes_its_checks(name):
    model, inputs = capture_models.tiny(name)
    configs = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}
    before = {key: config._attn_implementation for key, config in configs.items()}
    with torch.no_grad():
        plain = tensors(capture_models.run(model, inputs))
    # After the first run: LLaVA asks its tower for hidden states, for which transformers adds its own hooks.
    hooks_before = hooks(model)
    captured = Capture(model, ["entropy", "head_norm"], backend="fused").run(
        lambda: capture_models.run(model, inputs)
    )
    # Relative to the largest value; fused and plain differ in the order of sums.
    assert distance(plain, tensors(captured.output)) <= 2e-5
    with torch.no_grad():
        again = tensors(capture_models.run(model, inputs))
    assert all(torch.equal(a, b) for a, b in zip(plain, again))
    assert {key: config._attn_implementation for key, config in configs.items()} == before
    assert hooks(model) == hooks_before
    # SigLIP pools by an nn.MultiheadAttention, which no route knows.
    layers = ["*", "!*.head.attention"] if name == "siglip" else "*"
    checked = validate(model, lambda: capture_models.run(model, inputs), layers=layers)
    assert len(checked) >= 2


def test_head_norm_goes_through_the_right_output_projection():
    # With one head the head's contribution is the module's whole output but for the output bias.
    import transformers

    torch.manual_seed(0)
    config = dict(capture_models.TEXT, num_attention_heads=1)
    gpt2 = transformers.GPT2Config(vocab_size=60, n_embd=32, n_layer=2, n_head=1, n_positions=32)
    cases = [
        (transformers.LlamaModel(transformers.LlamaConfig(**config)), "layers.0.self_attn"),
        (transformers.GPT2Model(gpt2), "h.0.attn"),
        (transformers.BertModel(transformers.BertConfig(**config)), "encoder.layer.0.attention.output.dense"),
        (
            transformers.VisualBertModel(transformers.VisualBertConfig(**config)),
            "encoder.layer.0.attention.output.dense",
        ),
    ]
    for model, name in cases:
        model.eval()
        made = []
        handle = model.get_submodule(name).register_forward_hook(
            lambda _, __, output, made=made: made.append(output[0] if isinstance(output, tuple) else output)
        )
        captured = Capture(model, ["head_norm"])(input_ids=capture_models.IDS)
        handle.remove()
        module = model.get_submodule(name)
        bias = next(
            (
                p
                for n, p in module.named_parameters()
                if n.endswith(("c_proj.bias", "bias")) and p.shape == (32,)
            ),
            0,
        )
        expected = (made[0] - bias).norm(dim=-1)
        (kind,) = captured.values()
        assert torch.allclose(kind.head_norm[:, 0, 0], expected, atol=1e-5), name


def test_llava_mass_by_role_with_two_images_and_left_padding():
    model, inputs = capture_models.tiny("llava")
    roles = roles_of_ids(inputs["input_ids"], model.config, inputs["attention_mask"])
    assert roles[0].count("image") == 18 and roles[1].count("image") == 9 and roles[1].count("pad") == 10
    groups = role_groups(roles)
    assert groups.names == ["text", "image", "bos"]
    capture = Capture(model, ["mass", "attn"], groups=groups, layers="*language_model*")
    captured = capture(**inputs)
    (kind,) = captured
    assert kind == "model.language_model.layers.*.self_attn"
    found = captured[kind]
    is_image = inputs["input_ids"] == 55
    by_hand = (found.attn * is_image[:, None, None, None]).sum(-1)
    assert torch.allclose(found.mass[..., 1], by_hand, atol=1e-6)
    real = inputs["attention_mask"].bool()
    sums = found.mass.sum(-1).permute(0, 3, 1, 2)[real]
    assert torch.allclose(sums, torch.ones_like(sums), atol=1e-6)
    assert found.mass[1, :, :, :10].abs().sum() == 0


def test_layers_and_kinds_are_chosen_by_glob_and_nothing_is_an_error():
    model, inputs = capture_models.tiny("llava")
    one = Capture(model, ["lse"], layers="model.language_model.layers.1.*")(**inputs)
    assert [k.layers for k in one.values()] == [[1]]
    named = Capture(model, ["lse"], kinds={"text": "*language_model*", "vision": "*vision_tower*"})(**inputs)
    assert sorted(named) == ["text", "vision"] and named["text"].layers == [0, 1]
    with pytest.raises(AtlasError, match=r"layers: '\*langauge\*' matches nothing"):
        Capture(model, ["lse"], layers="*langauge*")(**inputs)
    with pytest.raises(AtlasError, match=r"groups: for 1 × 3 keys, but .*vision_tower.* has 3 × 10"):
        Capture(model, ["mass"], groups=Groups(["a"], np.ones((1, 3, 1))))(**inputs)


def test_bfloat16_statistics_are_computed_in_float32():
    import transformers

    torch.manual_seed(0)
    model = transformers.LlamaModel(transformers.LlamaConfig(**capture_models.LLAMA)).eval().bfloat16()
    roles = role_groups([["text"] * 7] * 2)
    for backend in ("fused", "materialised"):
        captured = Capture(model, ["mass", "entropy"], groups=roles, backend=backend)(
            input_ids=capture_models.IDS
        )
        with torch.no_grad():
            plain = model(input_ids=capture_models.IDS).last_hidden_state
        (kind,) = captured.values()
        assert kind.mass.dtype == torch.float32
        assert float((kind.mass - 1).abs().max()) < 1e-5
        assert torch.equal(captured.output.last_hidden_state, plain)
