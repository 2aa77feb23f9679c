"""Published vision LLMs: tiny checkpoints of the same classes in a folder, read as real ones are, and what an
unsupported one lacks in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT
from PIL import Image
from vlm_world import TEXTS, tiny, tiny_tokenizer

from attention_atlas.capture.boxes import token_boxes
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.hub import checked_config, resolved_precision
from attention_atlas.models.vlm.load import load_vlm
from attention_atlas.models.vlm.samples import Sample

TEMPLATES = {"llava": "USER: <image>\n{prompt} ASSISTANT:", "instructblip": "{prompt}"}


def saved(kind: str, folder: Path) -> Path:
    """A checkpoint as the hub holds it: weights, tokenizer, image processor, Q-Former's tokenizer."""
    from transformers import (
        CLIPImageProcessorPil,
        InstructBlipConfig,
        InstructBlipForConditionalGeneration,
        LlavaForConditionalGeneration,
    )

    tokenizer = tiny_tokenizer()
    own = tiny(kind, tokenizer)
    torch.manual_seed(1)
    # Without the stem that only models trained here have.
    if kind == "llava":
        model = LlavaForConditionalGeneration(own.model.config)
    else:
        config = InstructBlipConfig(**own.model.config.to_dict())
        model = InstructBlipForConditionalGeneration(config)
        torch.nn.init.normal_(model.query_tokens)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"size": {"shortest_edge": 48}, "crop_size": {"height": 48, "width": 48}}
    CLIPImageProcessorPil(**size).save_pretrained(folder)
    if kind == "instructblip":
        tokenizer.save_pretrained(folder / "qformer_tokenizer")
    return folder


def loaded_from(folder: Path, kind: str, **more: str):
    """Through the configuration that names the checkpoint, as in conf/model."""
    model = yaml.safe_load((ROOT / f"conf/model/{kind}_7b.yaml").read_text())
    return load_vlm(model | {"pretrained": str(folder), **more})


@pytest.fixture(scope="module", params=["llava", "instructblip"])
def checkpoint(request, tmp_path_factory):
    return request.param, saved(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture
def sample(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (60, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return Sample("a", "a", tmp_path / "a.png", TEXTS[0], TEXTS[1])


def test_a_checkpoint_gives_what_its_own_classes_give(checkpoint, sample):
    import transformers

    kind, folder = checkpoint
    loaded = loaded_from(folder, kind)
    assert type(loaded.model).__name__.lower().startswith(kind)
    inputs = loaded.batch([sample])
    count = 9 if kind == "llava" else 5
    assert loaded.roles(inputs)[0].count("image") == count
    own = getattr(transformers, type(loaded.model).__name__).from_pretrained(folder).eval()
    with torch.no_grad():
        assert torch.equal(own(**inputs).logits, loaded.model(**inputs).logits)
    assert len(loaded.decoder_layers) == 3 and loaded.text_config.num_key_value_heads == 2
    assert isinstance(loaded.write([sample], longest=3)[0], str)


def test_inputs_are_those_of_transformers_own_processor(checkpoint, sample):
    from transformers import CLIPImageProcessorPil, InstructBlipProcessor, LlavaProcessor

    kind, folder = checkpoint
    loaded = loaded_from(folder, kind)
    tokenizer, images = loaded.inputs.tokenizer, CLIPImageProcessorPil.from_pretrained(folder)
    image = Image.open(sample.image)
    ours = loaded.batch([Sample("x", "x", sample.image, TEXTS[0])])
    if kind == "llava":
        own = LlavaProcessor(
            images,
            tokenizer,
            patch_size=16,
            vision_feature_select_strategy="default",
            image_token="<image>",
            num_additional_image_tokens=1,
        )(images=image, text=TEMPLATES[kind].format(prompt=TEXTS[0]), return_tensors="pt")
    else:
        own = InstructBlipProcessor(images, tokenizer, tokenizer, num_query_tokens=5)(
            images=image, text=TEXTS[0], return_tensors="pt"
        )
        assert torch.equal(own["qformer_input_ids"], ours["qformer_input_ids"])
    assert own["input_ids"].tolist() == ours["input_ids"].tolist()
    assert torch.allclose(own["pixel_values"], ours["pixel_values"])


def test_half_precision_is_near_to_full(checkpoint, sample):
    kind, folder = checkpoint
    full = loaded_from(folder, kind).log_prob([sample])[0][0]
    half = loaded_from(folder, kind, precision="bfloat16")
    assert half.model.dtype == torch.bfloat16
    assert half.log_prob([sample])[0][0] == pytest.approx(full, rel=0.05)


def test_what_a_model_lacks_is_one_line(checkpoint, tmp_path):
    from transformers import BlipConfig, InstructBlipConfig, LlamaConfig, T5Config

    kind, folder = checkpoint
    BlipConfig().save_pretrained(tmp_path / "blip")
    LlamaConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path / "llama")
    T5 = InstructBlipConfig(text_config=T5Config())
    T5.save_pretrained(tmp_path / "t5")
    for name, message in (
        ("blip", "model_type: 'blip' is not supported"),
        ("llama", "model_type: 'llama' is not supported"),
        ("t5", "encoder-decoder"),
        ("nowhere", "give a hub id or a folder"),
    ):
        with pytest.raises(AtlasError, match=message) as raised:
            checked_config(str(tmp_path / name))
        assert "\n" not in str(raised.value)
    with pytest.raises(AtlasError, match="tokenizer or image processor"):
        bare = tmp_path / "bare"
        bare.mkdir()
        for file in ("config.json", "model.safetensors"):
            (bare / file).write_bytes((folder / file).read_bytes())
        loaded_from(bare, kind)
    with pytest.raises(AtlasError, match="weights"):
        empty = tmp_path / "empty"
        empty.mkdir()
        (empty / "config.json").write_bytes((folder / "config.json").read_bytes())
        loaded_from(empty, kind)


def test_precision_follows_the_machine():
    assert resolved_precision("auto", "cpu") == (torch.float32, False)
    assert resolved_precision("float16", "cpu") == (torch.float16, False)
    with pytest.raises(ConfigError, match="8bit needs a CUDA device"):
        resolved_precision("8bit", "cpu")
    with pytest.raises(ConfigError, match="precision: 'int3' is unknown"):
        resolved_precision("int3", "cpu")


@pytest.mark.parametrize("name", ["llava_7b", "llava_13b", "instructblip_7b", "instructblip_13b"])
def test_published_models_are_named_by_hub_id(name):
    config = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
    assert config["name"] == name and "/" in config["pretrained"] and "{prompt}" in config["template"]
    assert ("<image>\n" in config["template"]) == name.startswith("llava")


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("tower", ["clip", "siglip"])
def test_a_image_has_as_many_tokens_as_its_tower_gives(tower, strategy, tmp_path, sample):
    """SigLIP has no class token, so `full` is one position less than CLIP's, and `default` drops a patch."""
    import transformers as T

    folder = saved("llava", tmp_path / tower)
    config = T.LlavaConfig.from_pretrained(folder)
    config.vision_feature_select_strategy = strategy
    if tower == "siglip":
        sizes = {
            k: getattr(config.vision_config, k) for k in ("hidden_size", "intermediate_size", "patch_size")
        }
        config.vision_config = T.SiglipVisionConfig(
            **sizes, image_size=48, num_hidden_layers=3, num_attention_heads=2
        )
    T.LlavaForConditionalGeneration(config).save_pretrained(folder)
    loaded = loaded_from(folder, "llava")
    inputs = loaded.batch([sample])
    expected = {"clip": {"default": 9, "full": 10}, "siglip": {"default": 8, "full": 9}}[tower][strategy]
    assert loaded.roles(inputs)[0].count("image") == expected
    assert (
        loaded.log_prob([sample])[0][0] < 0
    )  # transformers raises where tokens and features differ in number
    assert loaded.grid == ((3, 3) if expected == 9 else None)
    boxes, _ = token_boxes(config, inputs, [(60, 50)], loaded.inputs.image_processor)
    placed = boxes[[role == "image" for role in loaded.roles(inputs)[0]]].isfinite().all(1)
    assert placed.sum() == min(expected, 9) and placed[0] == (expected != 10)
