"""Parts of a model as aliases of globs: "decoder", "vision", "cross"."""

import capture_models
import pytest
import torch
from torch import nn

from attention_atlas.capture import Capture, Groups, validate
from attention_atlas.capture.seam import attend
from attention_atlas.capture.sites import Sites
from attention_atlas.capture.want import fits
from attention_atlas.errors import AtlasError


def test_parts_select_layers_and_name_kinds_and_exclude():
    model, inputs = capture_models.tiny("llava")
    for part, name in (("decoder", "language_model"), ("vision", "vision_tower")):
        (kind,) = Capture(model, ["lse"], layers=part)(**inputs).values()
        assert len(kind.names) == 2 and all(name in n for n in kind.names)
    (kind,) = Capture(model, ["lse"], layers="decoder.1")(**inputs).values()
    assert kind.names == ["model.language_model.layers.1.self_attn"]
    (kind,) = Capture(model, ["lse"], layers=["*", "!decoder", "!vision.0"])(**inputs).values()
    assert kind.names == ["model.vision_tower.encoder.layers.1.self_attn"]
    named = Capture(model, ["lse"], kinds={"text": "decoder", "eye": "vision"})(**inputs)
    assert sorted(named) == ["eye", "text"]
    assert len(validate(model, lambda: model(**inputs), layers="decoder")) == 2
    with pytest.raises(AtlasError, match="layers: 'cross' matches nothing"):
        Capture(model, ["lse"], layers="cross")(**inputs)


def test_parts_are_keys_of_groups_rows_and_projections():
    model, inputs = capture_models.tiny("llava")
    width = inputs["input_ids"].shape[1]
    captured = Capture(
        model,
        ["mass", "rows", "head_norm"],
        groups={"decoder": Groups(["all"], torch.ones(2, width, 1))},
        rows={"vision.*": [0], "vision": [0]},
        projections={"decoder": "o_proj", "vision": "out_proj"},
    )(**inputs)
    kinds = list(captured.values())
    assert [sorted(k.values) for k in kinds] == [["head_norm", "rows"], ["head_norm", "mass"]]


def test_a_glob_that_is_no_part_keeps_its_meaning():
    # "*decoder*" and "decoder_x" are module names; a part is named as a whole.
    assert (
        fits("decoder", "@decoder") and fits("decoder.*", "@decoder.3") and fits("decoder.1?", "@decoder.12")
    )
    assert not fits("*", "@decoder") and not fits("*decoder*", "@decoder") and not fits("decod*", "@decoder")
    assert not fits("decoder", "@decoder.3") and not fits("decoder", "decoder.layers.0")


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        for name in ("decoder_self", "cross", "encoder_self"):
            part = nn.Module()
            part.attention_kind, part.layer_index = name, 3
            setattr(self, name, part)

    def forward(self, x):
        for part in self.children():
            x = x + attend(part, x, x, x)
        return x


def test_modules_of_this_project_say_it_by_their_kind():
    model, x = Own(), torch.ones(1, 1, 2, 2)
    assert list(Capture(model, ["lse"], layers="decoder")(x)) == ["decoder_self"]
    assert list(Capture(model, ["lse"], layers=["decoder.3", "cross"])(x)) == ["decoder_self", "cross"]


def parts_of(name):
    model, _ = capture_models.tiny(name)
    sites = Sites(model, ["*"], {})
    found = {}
    for module in sites.modules:
        last = module.rpartition(".")[2]
        if last in (
            "self_attn",
            "attn",
            "self",
            "attention",
            "crossattention",
            "SelfAttention",
            "EncDecAttention",
        ):
            found.setdefault(sites.part(module), []).append(module)
    return found


def test_parts_of_other_architectures():
    assert set(parts_of("clip")) == {"vision", "decoder"}  # its text tower is its language model
    assert set(parts_of("gpt2")) == set(parts_of("llama")) == {"decoder"}
    # A Q-Former is neither; its attention to the image is cross-attention.
    qformer = parts_of("instructblip_qformer")
    assert set(qformer) == {"", "cross"} and all("crossattention" in n for n in qformer["cross"])


def test_of_an_encoder_decoder_the_decoder_alone():
    import transformers as T

    sizes = dict(vocab_size=60, d_model=16, num_layers=1, num_heads=2, d_kv=8, d_ff=16)
    model = T.T5ForConditionalGeneration(T.T5Config(**sizes, decoder_start_token_id=0)).eval()
    inputs = {"input_ids": capture_models.IDS, "decoder_input_ids": capture_models.IDS[:, :3]}
    for part, name in (("decoder", "decoder.block.0.layer.0"), ("cross", "decoder.block.0.layer.1")):
        (kind,) = Capture(model, ["lse"], layers=part)(**inputs).values()
        assert len(kind.names) == 1 and kind.names[0].startswith(name)
