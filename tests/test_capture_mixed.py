"""Models that only partly pass through the capture: nothing is lost silently, no output changes."""

import copy
import warnings

import capture_models
import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture, backends, role_groups, validate
from attention_atlas.capture.agreement import distance
from attention_atlas.capture.seam import attend
from attention_atlas.errors import AtlasError

IDS, PIXELS = capture_models.IDS, capture_models.PIXELS


def built(make, scale=4.0):
    """A model whose weights are as large as a trained one's, so that attention matters."""
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    model = make(transformers).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(scale)
    return model


def git(T):
    return T.GitForCausalLM(T.GitConfig(vision_config=capture_models.VISION, **capture_models.TEXT))


def vit_and(decoder):
    def make(T):
        vit = T.ViTConfig(**capture_models.VISION)
        config = T.VisionEncoderDecoderConfig.from_encoder_decoder_configs(vit, decoder(T))
        return T.VisionEncoderDecoderModel(config=config)

    return make


def trocr(T):
    sizes = dict(d_model=32, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=48)
    return T.TrOCRConfig(vocab_size=60, max_position_embeddings=32, cross_attention_hidden_size=32, **sizes)


def xglm(T):
    sizes = dict(d_model=32, num_layers=2, attention_heads=4, ffn_dim=48, add_cross_attention=True)
    return T.XGLMConfig(vocab_size=60, max_position_embeddings=32, **sizes)


CASES = {
    "git": (git, {"input_ids": IDS, "pixel_values": PIXELS}, ["git.encoder.layer.0.attention.self"]),
    "trocr": (
        vit_and(trocr),
        {"decoder_input_ids": IDS, "pixel_values": PIXELS},
        ["decoder.model.decoder.layers.1.encoder_attn", "decoder.model.decoder.layers.0.self_attn"],
    ),
    "xglm": (
        vit_and(xglm),
        {"decoder_input_ids": IDS, "pixel_values": PIXELS},
        ["decoder.model.layers.0.self_attn", "decoder.model.layers.1.encoder_attn"],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_attention_that_is_not_captured_is_named_and_the_output_stays(name):
    make, inputs, missing = CASES[name]
    model = built(make)
    with torch.no_grad():
        plain = model(**inputs).logits
    capture = Capture(model, ["entropy"])
    with pytest.warns(UserWarning, match="attention that is not captured: "):
        captured = capture(**inputs)
    assert torch.equal(captured.output.logits, plain) or distance([plain], [captured.output.logits]) < 1e-5
    assert set(missing) <= set(captured.outside)
    assert len(captured) == 1  # the image's layers
    with pytest.raises(AtlasError, match="check 'inventory': attention does not pass through the capture"):
        validate(model, lambda: model(**inputs))
    rest = ["*", *(f"!{name}" for name in captured.outside)]
    assert len(validate(model, lambda: model(**inputs), layers=rest)) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not Capture(model, ["entropy"], layers=rest)(**inputs).outside
        Capture(model, ["entropy"], check=False)(**inputs)
        again = capture(**inputs)  # once is enough
    assert again.outside == captured.outside


def test_a_pass_that_fails_does_not_use_up_the_look_for_missing_attention():
    model = built(git)
    capture = Capture(model, ["entropy"])
    with capture:
        pass
    with pytest.raises(ZeroDivisionError):
        capture.run(lambda: model(input_ids=IDS, pixel_values=PIXELS) and 1 / 0)
    with pytest.warns(UserWarning, match="not captured"):
        capture(input_ids=IDS, pixel_values=PIXELS)


def test_git_stays_causal():
    model = built(git)
    other = IDS.clone()
    other[:, -1] = 20
    capture = Capture(model, ["entropy"], layers="*image_encoder*")
    a, b = (capture(input_ids=ids, pixel_values=PIXELS).output.logits for ids in (IDS, other))
    assert torch.equal(a[:, :-1], b[:, :-1])


def test_a_module_without_mask_that_calls_itself_causal_is_as_its_eager_code():
    def bridgetower(T):
        sizes = dict(hidden_size=64, num_attention_heads=4, num_hidden_layers=2, intermediate_size=64)
        text = dict(sizes, vocab_size=60, max_position_embeddings=64)
        vision = dict(hidden_size=64, num_hidden_layers=2, patch_size=8, image_size=24)
        return T.BridgeTowerModel(T.BridgeTowerConfig(**sizes, text_config=text, vision_config=vision))

    model = built(bridgetower, 1.0)
    inputs = {"input_ids": IDS, "attention_mask": capture_models.RIGHT, "pixel_values": PIXELS}
    inputs["pixel_mask"] = torch.ones(2, 24, 24, dtype=torch.long)
    with torch.no_grad():
        plain = model(**inputs)
        eager = []
        module = model.get_submodule("cross_modal_image_layers.0.attention.self")
        assert module.is_causal
        handle = module.register_forward_hook(lambda _, __, output: eager.append(output[1]))
        model(**inputs, output_attentions=True)
        handle.remove()
    capture = Capture(model, ["attn"], layers="*cross_modal*")
    captured = capture(**inputs)
    assert torch.equal(captured.output.image_features, plain.image_features)
    found = captured["cross_modal_image_layers.*.attention.self"].attn[:, 0]
    assert torch.allclose(found, eager[0], atol=1e-6) and found[0, 0, 0, -1] > 0


def test_an_implementation_that_cannot_be_captured_is_refused(monkeypatch):
    from transformers import AttentionInterface

    model, inputs = capture_models.tiny("llama")
    sdpa = AttentionInterface._global_mapping["sdpa"]
    monkeypatch.setitem(AttentionInterface._global_mapping, "my_kernel", sdpa)
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "my_kernel")
    with pytest.raises(AtlasError, match=r"'my_kernel' cannot be captured; call model\.set_attn_impl"):
        Capture(model, ["lse"])(**inputs)
    with torch.no_grad():
        assert model(**inputs).logits.isfinite().all()


def eager_attentions(model, inputs):
    with torch.no_grad():
        output = model(**inputs, output_attentions=True)
    return torch.stack(output.attentions, 1)


@pytest.mark.parametrize("backend", ["fused", "materialised", "auto"])
def test_softcapped_scores_equal_the_models_own(backend):
    def gemma(T):
        return T.Gemma2ForCausalLM(
            T.Gemma2Config(**capture_models.LLAMA, head_dim=8, attn_logit_softcapping=2.0, sliding_window=4)
        )

    model, inputs = built(gemma), {"input_ids": IDS, "attention_mask": capture_models.LEFT}
    attn = eager_attentions(model, inputs)
    captured = Capture(model, ["attn", "columns", "pairs"], columns=[1], pairs=[[5, 3]])(**inputs)
    real = capture_models.LEFT.bool()[:, None, None, :, None]
    for kind in captured.values():
        assert float(((kind.attn - attn) * real).abs().max()) < 1e-6
        assert torch.allclose(kind.columns[..., 0] * real[..., 0], attn[..., 1] * real[..., 0], atol=1e-6)
        assert torch.allclose(kind.pairs[..., 0], attn[..., 5, 3], atol=1e-6)
    (kind,) = Capture(model, ["entropy"], backend=backend)(**inputs).values()
    entropy = -torch.xlogy(attn, attn).sum(-1)
    assert float(((kind.entropy - entropy) * real[..., 0]).abs().max()) < 1e-5
    assert len(validate(model, lambda: model(**inputs), backend=backend)) == 2


@pytest.mark.parametrize("backend", ["fused", "materialised", "auto"])
def test_a_sink_is_one_more_key_that_is_no_token(backend):
    def gpt_oss(T):
        sizes = dict(capture_models.LLAMA, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
        return T.GptOssForCausalLM(T.GptOssConfig(**sizes))

    model, inputs = built(gpt_oss), {"input_ids": IDS, "attention_mask": capture_models.LEFT}
    for name, parameter in model.named_parameters():
        if name.endswith("sinks"):
            nn.init.normal_(parameter, std=2)
    attn = eager_attentions(model, inputs)
    assert float(attn[1, :, :, -1].sum(-1).max()) < 1  # the sink's share is missing
    names = ["mass", "entropy", "received", "rows"]
    groups = role_groups([["text"] * 7] * 2)
    captured = Capture(model, names, groups=groups, rows=[-1], backend=backend)(**inputs)
    assert torch.allclose(captured.output.logits, model(**inputs).logits, atol=1e-6)
    (kind,) = captured.values()
    rest = 1 - attn.sum(-1)
    entropy = -torch.xlogy(attn, attn).sum(-1) - torch.xlogy(rest, rest)
    seen = capture_models.LEFT.bool()[:, None, None, :]
    assert torch.allclose(kind.mass[..., 0] * seen, attn.sum(-1) * seen, atol=1e-5)
    assert torch.allclose(kind.entropy * seen, entropy * seen, atol=1e-5)
    assert torch.allclose(kind.rows[..., 0, :], attn[..., -1, :], atol=1e-6)
    assert kind.received.shape == (2, 2, 4, 7)
    assert len(validate(model, lambda: model(**inputs), backend=backend)) == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["llama", "clip", "vilt", "llava"])
def test_half_precision_models_pass_the_checks_and_faults_do_not(name, dtype, monkeypatch):
    model, inputs = capture_models.tiny(name)
    model = copy.deepcopy(model).to(dtype)
    inputs = {n: x.to(dtype) if x.is_floating_point() else x for n, x in inputs.items()}
    assert len(validate(model, lambda: capture_models.run(model, inputs))) >= 2
    right = backends.from_matrix

    def wrong(call, *rest):
        values, context = right(call, *rest)
        return values, 1.5 * context

    monkeypatch.setattr(backends, "from_matrix", wrong)
    with pytest.raises(AtlasError, match="check 'weights times values'"):
        validate(model, lambda: capture_models.run(model, inputs))


@pytest.mark.parametrize("name", ["llama", "vilt", "lxmert"])
def test_autocast_changes_neither_output_nor_precision(name):
    model, inputs = capture_models.tiny(name)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        plain = capture_models.run(model, inputs)[0]
        found = [
            Capture(model, ["entropy"], backend=backend).run(lambda: capture_models.run(model, inputs))
            for backend in ("fused", "materialised")
        ]
        assert len(validate(model, lambda: capture_models.run(model, inputs))) >= 2
    for kind in found[0]:
        assert torch.allclose(found[0][kind].entropy, found[1][kind].entropy, atol=1e-5)
    assert all(torch.equal(captured.output[0], plain) for captured in found)


def test_attention_of_pytorch_itself_is_named():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.layer = Own(), nn.TransformerEncoderLayer(8, 2, batch_first=True)
            self.pool = nn.Linear(8, 1)

        def forward(self, x_BTD):
            x_BTD = self.layer(self.own(x_BTD))
            # No attention: an expected value over fixed numbers, and classes.
            expected = self.pool(x_BTD.softmax(-1))
            return expected, x_BTD.softmax(-1)

    class Own(nn.Module):
        attention_kind, layer_index = "own", 0

        def forward(self, x_BTD):
            return attend(self, *[x_BTD[:, None]] * 3)[:, 0]

    torch.manual_seed(0)
    model, x = Model(), torch.randn(2, 5, 8)
    for training, name in (
        (True, "layer.self_attn"),
        (False, "layer"),
    ):  # PyTorch fuses the layer in evaluation
        with pytest.warns(UserWarning, match="not captured"):
            assert Capture(model.train(training), ["lse"])(x).outside == [name]


def test_outputs_with_masked_logits_are_still_compared():
    """finfo.min in the output must not swallow the comparison of the rest."""
    a = torch.randn(4, 50, generator=torch.Generator().manual_seed(0))
    for low in (torch.finfo(torch.float32).min, -1e9, -1e4):
        a[:, 7] = low
        b = a.clone()
        b[0, 3] += 0.1
        assert distance([a], [a.clone()]) == 0
        assert distance([a], [b]) > 0.01
    b = a.clone()
    b[0, 7] = 0
    assert distance([a], [b]) > 0.1
    assert distance([a], [a[:, :3]]) == float("inf")
    c = a.half()
    c[:, 7] = torch.finfo(torch.float16).min
    d = c.clone()
    d[0, 3] += 0.1
    assert distance([c], [d]) > 0.01
