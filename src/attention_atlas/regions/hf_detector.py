"""Regions from any transformers object detector with queries (DETR and its variants, YOLOS, RT-DETR, ...).

A region is a query: its box, its best class and score, and as features the last hidden state of the query.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.regions.features_file import FeaturesWriter
from attention_atlas.regions.imported import clean_boxes
from attention_atlas.regions.source import FeatureSource, ImageRegions, in_blocks, open_image, write_regions

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass
class HFDetector(FeatureSource):
    """`model`: hub id or folder. Keeps the `regions` most confident queries of each image. There are no
    attributes, because these detectors only name objects."""

    model: str
    revision: str | None = None
    regions: int = 36
    batch: int = 8  # images of the same size per forward pass
    block: int = 64  # images per resumable block

    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        net, processor = load_detector(self.model, self.revision)
        net = net.to(device).eval()
        config = net.config
        names = {int(i): str(name) for i, name in config.id2label.items()}
        labels = [names.get(i, f"class {i}") for i in range(config.num_labels)]

        def compute(image_ids: list[str]) -> list[ImageRegions]:
            images = [open_image(corpus, i) for i in image_ids]
            rows: list[ImageRegions] = []
            start = 0
            # A batch contains neighbours of one size: without padding, boxes do not depend on the batch.
            for _, same in groupby(images, key=lambda image: image.size):
                count = len(list(same))
                for at in range(start, start + count, self.batch):
                    batch = images[at : min(at + self.batch, start + count)]
                    rows += detect(net, processor, batch, self.regions, device)
                start += count
            return rows

        first = compute(next([i] for i in corpus.scenes))[0] if corpus.scenes else None
        if first is None:
            raise AtlasError(f"{corpus.root}: scenes: has no images; check the corpus")
        with FeaturesWriter(
            out,
            dim=first.features.shape[1],
            regions=min(self.regions, len(first.features)),
            labels=labels,
            source=self.model if not self.revision else f"{self.model}@{self.revision}",
            config_hash=self.fingerprint(),
        ) as writer:
            write_regions(writer, in_blocks(list(corpus.scenes), compute, work, self.block, "detect"))


def load_detector(model: str, revision: str | None = None) -> tuple[Any, Any]:
    """(model, image processor). Raises ConfigError naming the model if it cannot be loaded."""
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    try:
        processor = AutoImageProcessor.from_pretrained(model, revision=revision)
        net = AutoModelForObjectDetection.from_pretrained(model, revision=revision)
    except (OSError, ValueError, KeyError, ImportError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = (lines or [type(error).__name__])[0].split(". ")[0][:160]
        raise ConfigError(
            f"HFDetector: model: '{model}' cannot be loaded as an object detector ({reason}); "
            "give a folder with its weights and preprocessor, or a reachable hub id"
        ) from None
    return net, processor


def detect(net: Any, processor: Any, images: list[Image], regions: int, device: str) -> list[ImageRegions]:
    """The `regions` most confident queries of each image, best first. All images must have the same size.

    With one logit more than classes, the model uses a softmax with 'no object' last (DETR, YOLOS); with one
    logit per class, independent sigmoids (RT-DETR, Deformable and Conditional DETR).
    """
    import torch

    inputs = processor(images=images, return_tensors="pt").to(device)
    with torch.inference_mode():
        output = net(**inputs)
    logits_BQC, boxes_BQ4 = output.logits.float(), output.pred_boxes.float()
    queries = logits_BQC.shape[1]
    # YOLOS returns patches too; its detection tokens come last.
    states_BQD = output.last_hidden_state[:, -queries:].float()
    if logits_BQC.shape[2] == net.config.num_labels + 1:
        chance_BQC = logits_BQC.softmax(-1)[..., :-1]
    else:
        chance_BQC = logits_BQC.sigmoid()
    score_BQ, label_BQ = chance_BQC.max(-1)
    order_BQ = torch.argsort(score_BQ, dim=1, descending=True, stable=True)[:, :regions]

    rows = []
    for b, image in enumerate(images):
        keep = order_BQ[b]
        size = image.size
        cx, cy, w, h = boxes_BQ4[b, keep].cpu().double().numpy().T
        corners = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=1)
        rows.append(
            ImageRegions(
                features=states_BQD[b, keep].cpu().numpy().astype(np.float16),
                boxes=clean_boxes(corners * np.array([*size, *size]), size),
                size=size,
                label=label_BQ[b, keep].cpu().numpy(),
                label_confidence=score_BQ[b, keep].cpu().numpy(),
            )
        )
    return rows
