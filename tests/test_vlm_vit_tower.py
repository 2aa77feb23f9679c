"""A pretrained ViT as the tower of LLaVA: tokens of the backbone, pooled; texts and captures on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from vlm_world import TEXTS, tiny_text, tiny_tokenizer

from attention_atlas.capture import Capture, role_groups
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.models.vlm.inputs import mini_inputs
from attention_atlas.models.vlm.llava import Llava
from attention_atlas.models.vlm.loaded import LoadedVlm
from attention_atlas.models.vlm.samples import Sample
from attention_atlas.models.vlm.tokenizer import IMAGE
from attention_atlas.models.vlm.vit_tower import VitTower
from attention_atlas.regions.backbone import load_backbone


def dinov2_folder(where: Path) -> str:
    """A DINOv2-architecture ViT with random weights, for images of other sizes than the tower's."""
    from transformers import Dinov2Config, Dinov2Model, ViTImageProcessorPil

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "mlp_ratio": 2}
    model = Dinov2Model(Dinov2Config(**sizes, image_size=40, patch_size=8, initializer_range=0.2))
    model.save_pretrained(where)
    ViTImageProcessorPil(image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]).save_pretrained(where)
    return str(where)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return dinov2_folder(tmp_path_factory.mktemp("vit"))


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(2)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
    return paths


def llava(tower: VitTower, tokenizer: Any) -> Llava:
    torch.manual_seed(0)
    image_id = tokenizer.convert_tokens_to_ids(IMAGE)
    model = Llava(tower.sizes, tiny_text(len(tokenizer)), image_id, stem=tower.stem).eval()
    model.vision.load_state_dict(tower.vision.state_dict())
    return model


def test_its_tokens_are_means_of_the_backbones(folder: str, images: list[Path]) -> None:
    tower = VitTower(folder, image_size=48, pool=2)
    backbone = load_backbone(folder)
    opened = [Image.open(path) for path in images]
    grid_BRCD = backbone.patches(backbone.pixels(opened, 48))
    expected = torch.nn.functional.avg_pool2d(grid_BRCD.permute(0, 3, 1, 2), 2).flatten(2).mT
    values_BHWC = torch.from_numpy(np.stack([np.asarray(i) for i in opened]))
    pixels = values_BHWC.permute(0, 3, 1, 2) / 127.5 - 1
    out = tower.vision(pixels, output_hidden_states=True)
    assert out.last_hidden_state.shape == (2, 1 + 9, 16) and expected.std() > 0.1
    assert torch.allclose(out.last_hidden_state[:, 1:], expected, atol=1e-4)
    assert [h.shape for h in out.hidden_states] == [(2, 10, 16)] * 4
    assert VitTower(folder, 48, 2, layers=2).sizes["num_hidden_layers"] == 2


def test_llava_writes_and_is_captured_on_it(folder: str, images: list[Path]) -> None:
    tokenizer = tiny_tokenizer()
    model = llava(VitTower(folder, image_size=48, pool=2), tokenizer)
    assert model.image_tokens == 9 and model.image_size == 48
    loaded = LoadedVlm("vit", model.model, mini_inputs(model, tokenizer))
    assert loaded.grid == (3, 3)
    samples = [Sample(str(i), str(i), path, TEXTS[0], TEXTS[1]) for i, path in enumerate(images)]
    assert len(loaded.write(samples, longest=5)) == 2
    inputs = loaded.batch(samples)
    # The features that training caches are what the whole model sees.
    tokens = model.project({"features": model.features(inputs["pixel_values"])})
    seen = model.model.get_image_features(inputs["pixel_values"]).pooler_output
    assert torch.allclose(tokens, torch.stack(list(seen)), atol=1e-5)
    one, other = (loaded.log_prob(samples[:1], images=[path])[0][0] for path in images)
    assert abs(one - other) > 1e-4

    groups = role_groups(loaded.roles(inputs))
    captured = Capture(model.model, ["mass"], groups=groups, layers="*language_model*")(**inputs)
    (kind,) = captured.values()
    assert torch.allclose(torch.as_tensor(kind.mass).sum(-1), torch.ones(()), atol=1e-3)
    (tower_kind,) = Capture(model.model, ["entropy"], layers="*vision_tower*")(**inputs).values()
    assert np.asarray(tower_kind.entropy).shape[-1] == 1 + 36  # the tower's own layers are not pooled


def test_wrong_sizes_are_named(folder: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"image_size: 40 is no multiple of 16"):
        VitTower(folder, image_size=40, pool=2)
    with pytest.raises(AtlasError, match="does not exist"):
        VitTower(str(tmp_path / "none"), image_size=48)
    from transformers import ViTConfig, ViTImageProcessorPil, ViTModel

    config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    ViTModel(config).save_pretrained(tmp_path)
    ViTImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(AtlasError, match="is a vit; give a DINOv2-architecture ViT"):
        VitTower(str(tmp_path), image_size=48)
