"""Features of the synthetic worlds: boxes from the proposal oracle, the rest from a CNN trained here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from attention_atlas.data.corpus import Corpus, Scene
from attention_atlas.progress import progress
from attention_atlas.regions.classifier import Batch, predict, train
from attention_atlas.regions.features_file import FeaturesWriter
from attention_atlas.regions.proposals import ProposalOracle
from attention_atlas.regions.region_cnn import RegionCNNConfig, build_net, mirror, places, two_views
from attention_atlas.regions.source import FeatureSource, ImageRegions, in_blocks, open_image, write_regions
from attention_atlas.regions.truth import Truth, training_scenes


@dataclass
class OracleCNN(FeatureSource):
    """Proposal oracle and region CNN. Needs a corpus whose scenes list their objects.

    Labels and attributes are those of the train split; the CNN is trained on the train split only, with fresh
    draws of the oracle, and then applied to draw 0 of every image.
    """

    proposals: ProposalOracle = field(default_factory=ProposalOracle)
    net: RegionCNNConfig = field(default_factory=RegionCNNConfig)
    train_split: str = "train"
    seed: int = 0
    block: int = 64  # images per resumable block

    def extract(self, corpus: Corpus, out: Path, work: Path, device: str) -> None:
        scenes = training_scenes(corpus, self.train_split)
        truth = Truth(scenes)
        labels, attributes = truth.labels, truth.attributes
        teacher = _Teacher(self, corpus, scenes, truth)
        net = train(
            lambda: build_net(self.net, len(labels), len(attributes)),
            self.net,
            teacher.batches,
            teacher.steps_per_epoch,
            len(labels),
            len(attributes),
            work / "region_cnn.pt",
            device,
            self.seed,
        )

        def compute(image_ids: list[str]) -> list[ImageRegions]:
            found = [self.proposals(corpus.scenes[i]) for i in image_ids]
            with ThreadPoolExecutor() as threads:  # reading and scaling images releases the GIL
                crops = list(
                    threads.map(
                        lambda i, p: two_views(open_image(corpus, i), p.boxes, self.net.crop),
                        image_ids,
                        found,
                    )
                )
            scenes = [corpus.scenes[i] for i in image_ids]
            where = [places(p.boxes, (s.width, s.height)) for s, p in zip(scenes, found)]
            rows = []
            for scene, proposal, seen in zip(scenes, found, predict(net, crops, where, device)):
                rows.append(
                    ImageRegions(
                        boxes=proposal.boxes,
                        gold=proposal.gold,
                        size=(scene.width, scene.height),
                        **vars(seen),
                    )
                )
            return rows

        with FeaturesWriter(
            out,
            dim=self.net.dim,
            regions=self.proposals.regions,
            labels=labels,
            attributes=attributes,
            source="proposal-oracle+region-cnn",
            config_hash=self.fingerprint(),
        ) as writer:
            write_regions(
                writer, in_blocks(list(corpus.scenes), compute, work, self.block, "region features")
            )


class _Teacher:
    """Batches of crops with their labels and attributes, deterministic in the epoch."""

    def __init__(self, source: OracleCNN, corpus: Corpus, scenes: list[Scene], truth: Truth) -> None:
        self.source, self.scenes, self.truth, self.net = source, scenes, truth, source.net
        # Walls and floors are in every image and quickly learnt; rarer labels are sampled more often.
        seen = Counter(o.label for s in scenes for o in s.objects)
        self.weight_of = {name: (len(scenes) / count) ** 0.5 for name, count in seen.items()}
        self.images = [open_image(corpus, s.image_id) for s in progress(scenes, "read images")]
        self.steps_per_epoch = -(-len(scenes) // self.net.images_per_step)

    def batches(self, epoch: int) -> Iterator[Batch]:
        rng = np.random.default_rng(np.random.SeedSequence([self.source.seed, 1, epoch]))
        order = rng.permutation(len(self.scenes))
        starts = range(0, len(order), self.net.images_per_step)
        what = f"region CNN, epoch {epoch + 1}/{self.net.epochs}"
        for start in progress(starts, what, total=len(starts)):
            rows = [self._one(int(i), epoch, rng) for i in order[start : start + self.net.images_per_step]]
            yield Batch(*(np.concatenate(column) for column in zip(*rows)))

    def _one(
        self, index: int, epoch: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Crops, places, labels and attributes of some proposals of one image, as in Batch."""
        scene = self.scenes[index]
        # Draw 0 is kept for features.h5; the CNN is trained on others.
        found = self.source.proposals(scene, draw=epoch + 1)
        objects = {o.id: o for o in scene.objects}
        weight = [self.weight_of[objects[g].label] if g in objects else 1.0 for g in found.gold.tolist()]
        # The top log weights + Gumbel noise are a weighted sample without replacement.
        take = np.argsort(-(np.log(weight) + rng.gumbel(size=len(weight))))[: self.net.regions_per_image]
        label, attribute = self.truth.of(scene, found.gold[take])
        crops = two_views(self.images[index], found.boxes[take], self.net.crop)
        where = places(found.boxes[take], (scene.width, scene.height))
        mirrored = rng.random(len(take)) < 0.5
        crops[mirrored], where[mirrored] = mirror(crops[mirrored], where[mirrored])
        return crops, where, label, attribute
