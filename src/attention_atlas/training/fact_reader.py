"""Inference with the trained classifier: facts, probabilities and features of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from attention_atlas.errors import AtlasError
from attention_atlas.measures.generation import score_of
from attention_atlas.training.facts import Facts, reading_from

SLOTS = "slots.json"


class FactReader:
    """A run of `ImageClassifier` (folder with slots.json). Raises AtlasError for any other folder."""

    def __init__(self, folder: str | Path, device: str = "cpu") -> None:
        from attention_atlas.files import read_json
        from attention_atlas.models.run_folder import load_run

        folder = Path(folder)
        model, _, _ = load_run(folder, device)
        self.model: Any = model
        self.reading = reading_from(read_json(folder / SLOTS))
        if [len(v) for v in self.reading.slots.values()] != self.model.values:
            raise AtlasError(f"{folder / SLOTS}: does not fit model.safetensors; retrain the classifier")

    @torch.no_grad()
    def __call__(self, pixels_NCSS: Tensor) -> tuple[list[np.ndarray], np.ndarray]:
        """(probabilities (N,values) of each slot, features (N,D)); images of another size are scaled."""
        size, device = self.model.size, next(self.model.parameters()).device
        found, features = [], []
        for part in pixels_NCSS.split(64):
            if part.shape[-1] != size:
                part = F.interpolate(part, (size, size), mode="area")
            seen_BXD, _ = self.model.looked(part.to(device))
            features.append(seen_BXD.mean(1))
            found.append([logits.softmax(-1).cpu().numpy() for logits in self.model.read(seen_BXD)])
        return [np.concatenate(rows) for rows in zip(*found)], torch.cat(features).cpu().numpy()

    def hits(self, probabilities: Sequence[np.ndarray], facts: Sequence[Facts]) -> list[dict[str, float]]:
        """For each image and fact, whether the most probable value is the stated one."""
        numbers = {slot: i for i, slot in enumerate(self.reading.slots)}
        return [
            {s: self._hit(probabilities[numbers[s]][n], s, v) for s, v in caption_facts.items()}
            for n, caption_facts in enumerate(facts)
        ]

    def rates(
        self, probabilities: Sequence[np.ndarray], facts: Sequence[Facts]
    ) -> dict[tuple[str, str], float]:
        """Fact -> share of all images in which the classifier reads it: the rate of a model that ignores
        its captions and reproduces frequencies alone."""
        numbers = {slot: i for i, slot in enumerate(self.reading.slots)}
        return {
            (s, v): float(np.mean(probabilities[numbers[s]].argmax(1) == self.reading.slots[s].index(v)))
            for caption_facts in facts
            for s, v in caption_facts.items()
        }

    def score(self, probabilities: Sequence[np.ndarray]) -> float:
        """The Inception score computed for each slot; geometric mean over the slots."""
        return float(np.exp(np.mean([np.log(score_of(p)) for p in probabilities])))

    def _hit(self, p_K: np.ndarray, slot: str, value: str) -> float:
        return float(int(p_K.argmax()) == self.reading.slots[slot].index(value))
