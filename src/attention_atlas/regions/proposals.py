"""Proposal oracle of the synthetic worlds: simulated detector boxes, drawn from the scene's objects.

No detector is trained in the mini profile. The oracle knows where the objects are (not what they are)
and errs as detectors do: it misses small and hidden objects, jitters boxes, proposes an object several
times and adds background. `features.h5` made this way has `source="proposal-oracle+..."`.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from attention_atlas.data.corpus import Scene, SceneObject

GOLD_IOU = 0.5  # minimum overlap at which a proposal shows the object it was drawn from


@dataclass
class Proposals:
    """boxes (N,4) float32 pixels x1,y1,x2,y2; gold (N,) int32 SceneObject id, or -1 for background."""

    boxes: np.ndarray
    gold: np.ndarray


@dataclass
class ProposalOracle:
    """The oracle's errors. Lengths are relative to the box's width and height."""

    regions: int = 36  # N, as in bottom-up attention with a fixed number of boxes
    seed: int = 0
    jitter: float = 0.07  # standard deviation of the first proposal's centre and log size
    duplicate_jitter: float = 0.14  # the same for the further proposals of an object
    miss: float = 0.02  # probability of missing an ordinary object
    miss_small: float = 0.25  # added for an object of no area, falls to 1/e at `small` of the image
    small: float = 0.004
    miss_hidden: float = 0.4  # added for a small hidden object, times the hidden share; 1/e at `large`
    large: float = 0.1  # fraction of the image: a floor is found although furniture hides most of it
    background: float = 0.2  # fraction of the N boxes that show no particular object
    min_side: float = 3.0  # minimum side of a box in pixels
    repeats: bool = True  # False: each object once, as after non-maximum suppression; the rest is background

    def __call__(self, scene: Scene, draw: int = 0) -> Proposals:
        """Exactly N proposals of a scene, in random order; deterministic in (seed, image id, draw).

        Other values of `draw` give other proposals, for training. A scene without objects gives
        background only.
        """
        key = zlib.crc32(scene.image_id.encode())  # stable across processes, unlike hash()
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, key, draw]))
        found = [o for o in scene.objects if rng.random() >= self._miss_chance(o, scene)]
        target = np.array([o.box for o in found], dtype=np.float64).reshape(-1, 4)
        n_objects = self.regions - round(self.background * self.regions)
        shown = self._which(target, n_objects, rng)
        boxes: list[np.ndarray] = []
        gold: list[int] = []
        for rank, which in enumerate(shown):
            spread = self.jitter if rank < len(found) else self.duplicate_jitter
            box = self._jitter(target[which], spread, scene, rng)
            boxes.append(box)
            close = iou(box[None], target[which][None])[0, 0] >= GOLD_IOU
            gold.append(found[which].id if close else -1)
        everything = np.array([o.box for o in scene.objects], dtype=np.float64).reshape(-1, 4)
        for _ in range(self.regions - len(shown)):
            boxes.append(self._background(everything, scene, rng))
            gold.append(-1)
        order = rng.permutation(self.regions)
        return Proposals(np.array(boxes, dtype=np.float32)[order], np.array(gold, dtype=np.int32)[order])

    def _miss_chance(self, item: SceneObject, scene: Scene) -> float:
        x1, y1, x2, y2 = item.box
        share = (x2 - x1) * (y2 - y1) / (scene.width * scene.height)
        hidden = self.miss_hidden * item.occlusion * np.exp(-share / self.large)
        return float(min(self.miss + self.miss_small * np.exp(-share / self.small) + hidden, 0.95))

    def _which(self, target: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
        """Object of each proposal: every object once (the largest ones if there are too many), then further
        draws in favour of larger ones, as detectors fire more often on large objects."""
        if len(target) == 0:
            return []
        area = (target[:, 2] - target[:, 0]) * (target[:, 3] - target[:, 1])
        first = np.argsort(-area, kind="stable")[:n]
        if not self.repeats:
            return [int(i) for i in first]
        weight = area**0.25 / (area**0.25).sum()
        more = rng.choice(len(target), size=n - len(first), p=weight)
        return [int(i) for i in (*first, *more)]

    def _jitter(self, box: np.ndarray, spread: float, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        centre = (box[:2] + box[2:]) / 2
        side = box[2:] - box[:2]
        centre = centre + rng.normal(0, spread, 2) * side
        side = side * np.exp(rng.normal(0, spread, 2))
        return self._clip(np.concatenate([centre - side / 2, centre + side / 2]), scene)

    def _background(self, objects: np.ndarray, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """A box that overlaps no object by GOLD_IOU: the best of ten tries."""
        size = np.array([scene.width, scene.height], dtype=np.float64)
        best, best_overlap = np.array([0, 0, *size]), np.inf
        for _ in range(10):
            side = size * np.exp(rng.uniform(np.log(0.08), np.log(0.6), 2))
            corner = rng.uniform(0, 1, 2) * (size - side)
            box = self._clip(np.concatenate([corner, corner + side]), scene)
            overlap = iou(box[None], objects).max(initial=0.0)
            if overlap < best_overlap:
                best, best_overlap = box, overlap
            if overlap < 0.2:
                break
        return best

    def _clip(self, box: np.ndarray, scene: Scene) -> np.ndarray:
        """Keep the box inside the image and at least `min_side` wide and high."""
        size = np.array([scene.width, scene.height], dtype=np.float64)
        least = np.minimum(self.min_side, size)
        low = np.clip(box[:2], 0, size - least)
        high = np.minimum(np.maximum(box[2:], low + least), size)
        return np.concatenate([low, high])


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (A,4) and (B,4) in x1,y1,x2,y2: (A,B)."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    both = np.prod(np.clip(high - low, 0, None), axis=-1)
    area_a = np.prod(a[:, 2:] - a[:, :2], axis=-1)
    area_b = np.prod(b[:, 2:] - b[:, :2], axis=-1)
    return both / (area_a[:, None] + area_b[None, :] - both)
