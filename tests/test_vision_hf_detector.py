"""Detectors from transformers: tiny random ones of the real classes, against their own post-processing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vision_world import draw_world

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.features_file import FeaturesFile
from attention_atlas.regions.hf_detector import HFDetector, load_detector
from attention_atlas.regions.source import open_image

NAMES = {0: "chair", 1: "lamp", 2: "sofa"}


def tiny(kind: str, folder: Path) -> str:
    """Write a random detector of the class, with its preprocessor, and return the folder."""
    import transformers as t
    from transformers.models.detr.image_processing_pil_detr import DetrImageProcessorPil
    from transformers.models.rt_detr.image_processing_pil_rt_detr import RTDetrImageProcessorPil
    from transformers.models.yolos.image_processing_pil_yolos import YolosImageProcessorPil

    torch.manual_seed(0)
    names: dict[str, Any] = {"id2label": NAMES, "label2id": {v: k for k, v in NAMES.items()}}
    stages: dict[str, Any] = {
        "embedding_size": 8,
        "hidden_sizes": [8, 8, 16, 16],
        "depths": [1, 1, 1, 1],
        "layer_type": "basic",
    }
    small: dict[str, Any] = {
        "d_model": 16,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 16,
        "decoder_ffn_dim": 16,
        "num_queries": 12,
    }
    model: Any
    processor: Any
    if kind == "detr":
        model = t.DetrForObjectDetection(
            t.DetrConfig(
                use_timm_backbone=False,
                use_pretrained_backbone=False,
                backbone=None,
                backbone_config=t.ResNetConfig(**stages, out_features=["stage4"]),
                **small,
                **names,
            )
        )
        processor = DetrImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96})
    elif kind == "yolos":
        model = t.YolosForObjectDetection(
            t.YolosConfig(
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=16,
                image_size=[64, 64],
                num_detection_tokens=12,
                use_mid_position_embeddings=False,
                **names,
            )
        )
        processor = YolosImageProcessorPil(size={"height": 64, "width": 64})
    else:
        model = t.RTDetrForObjectDetection(
            t.RTDetrConfig(
                backbone_config=t.RTDetrResNetConfig(**stages, out_features=["stage2", "stage3", "stage4"]),
                encoder_hidden_dim=16,
                encoder_in_channels=[8, 16, 16],
                decoder_in_channels=[16, 16, 16],
                num_denoising=0,
                **small,
                **names,
            )
        )
        processor = RTDetrImageProcessorPil(size={"height": 64, "width": 64})
    # Random heads are almost certain of nothing; sharper ones give scores that differ.
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "class" in name and weight.dim() == 2:
                weight.mul_(20)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return draw_world(tmp_path_factory.mktemp("world"), {"train": 5})


@pytest.mark.parametrize("kind", ["detr", "yolos", "rt_detr"])
def test_agrees_with_the_models_own_post_processing(kind: str, world: Corpus, tmp_path: Path) -> None:
    path = tiny(kind, tmp_path / "model")
    source = HFDetector(path, regions=7, batch=3, block=2)
    source.extract(world, tmp_path / "f.h5", tmp_path / "work", "cpu")
    file = FeaturesFile(tmp_path / "f.h5")
    assert file.labels == list(NAMES.values()) and file.source == path
    assert (file.regions, file.dim, file.image_ids) == (7, 16, list(world.scenes))
    net, processor = load_detector(path)
    net.eval()
    for image_id in file.image_ids:
        row = file.read(image_id)
        image = open_image(world, image_id)
        with torch.no_grad():
            output = net(**processor(images=image, return_tensors="pt"))
        (theirs,) = processor.post_process_object_detection(
            output, threshold=0.0, target_sizes=[image.size[::-1]]
        )
        assert row.count == 7 and (np.diff(row.label_confidence.astype(float)) <= 0).all()
        # RT-DETR lists a query once per class; ours, of its best class, must be among theirs.
        for box, score, label in zip(row.boxes, row.label_confidence, row.label):
            their_box = theirs["boxes"].numpy().clip(0, image.size[0])
            distance = np.abs(their_box - box).max(1) + np.abs(theirs["scores"].numpy() - float(score))
            distance[theirs["labels"].numpy() != label] = np.inf
            assert distance.min() < 0.01
        assert np.isclose(row.label_confidence[0], theirs["scores"].max(), atol=1e-3)
        # The features are the hidden states of these very queries: put through the model's own box head,
        # a query's state gives back its box (RT-DETR refines boxes from reference points instead).
        if kind != "rt_detr":
            head = net.bbox_predictor
            again = head(torch.from_numpy(row.features.astype("float32"))).sigmoid().detach().numpy()
            centre = again[:, :2] * image.size
            clipped = np.stack(
                [(row.boxes[:, 0] + row.boxes[:, 2]) / 2, (row.boxes[:, 1] + row.boxes[:, 3]) / 2], 1
            )
            inside = (row.boxes > 0.5).all(1) & (row.boxes < image.size[0] - 0.5).all(1)
            assert inside.any() and np.allclose(centre[inside], clipped[inside], atol=0.2)
        else:
            queries = {tuple(q) for q in output.last_hidden_state[0].half().numpy().tolist()}
            near = [min(np.abs(np.array(q) - f.astype(float)).max() for q in queries) for f in row.features]
            assert max(near) < 5e-3


def test_fewer_queries_than_regions(world: Corpus, tmp_path: Path) -> None:
    path = tiny("yolos", tmp_path / "model")
    HFDetector(path, regions=36).extract(world, tmp_path / "f.h5", tmp_path / "work", "cpu")
    assert FeaturesFile(tmp_path / "f.h5").regions == 12


def test_bad_model_and_missing_image_are_one_line(world: Corpus, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"HFDetector: model: '.*nowhere'") as caught:
        HFDetector(str(tmp_path / "nowhere")).extract(world, tmp_path / "f.h5", tmp_path / "w", "cpu")
    assert "\n" not in str(caught.value)
    path = tiny("yolos", tmp_path / "model")
    broken = draw_world(tmp_path / "broken", {"train": 2})
    broken.image_path("train001").unlink()
    with pytest.raises(AtlasError, match=r"train001.png: no such image"):
        HFDetector(path).extract(broken, tmp_path / "f.h5", tmp_path / "w2", "cpu")
    assert not (tmp_path / "f.h5").exists()
