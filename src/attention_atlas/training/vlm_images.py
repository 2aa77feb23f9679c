"""Images and texts of several corpora for training: one list of samples, one cache of pixels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attention_atlas.errors import AtlasError
from attention_atlas.models.vlm.samples import Sample, sample_of

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Scene


def read_layers(corpus: Corpus, layers: Iterable[Mapping[str, str]]) -> list[Corpus]:
    """The corpus of `data=` and the further ones {root, layer}; each layer once."""
    from attention_atlas.data.corpus import read_corpus

    found = [corpus]
    for item in layers:
        root, layer = item["root"], item["layer"]
        other = read_corpus(root, layer, name=Path(layer).stem)
        # The layer that data= already names: do not read it twice.
        if not any(o.root == other.root and o.examples == other.examples for o in found):
            found.append(other)
    return found


def samples(corpora: Sequence[Corpus], split: str, limit: int = 0) -> list[Sample]:
    """All samples of a split; `limit`: maximum number per corpus, evenly spaced (0: all)."""
    found: list[Sample] = []
    for corpus in corpora:
        examples = corpus.split(split)
        if limit and len(examples) > limit:
            examples = [examples[i * len(examples) // limit] for i in range(limit)]
        found += [sample_of(corpus, e) for e in examples]
    if not found:
        raise AtlasError(f"{corpora[0].root}: split '{split}' has no example; check data and split names")
    return found


def scenes_by_image(corpora: Sequence[Corpus]) -> dict[Path, Scene]:
    """The scene of each image's path."""
    return {c.image_path(image_id): scene for c in corpora for image_id, scene in c.scenes.items()}


class PixelCache:
    """Images as the tower takes them, kept as uint8 (3,h,w) up to `keep_bytes`.

    The image processor resizes and crops once; the rest, (value - mean) / std, is done per batch.
    """

    def __init__(self, image_processor: Any, keep_bytes: int = 4 << 30) -> None:
        self.processor, self.keep_bytes = image_processor, keep_bytes
        self.mean = torch.tensor(image_processor.image_mean).view(3, 1, 1) * 255
        self.std = torch.tensor(image_processor.image_std).view(3, 1, 1) * 255
        self._kept: dict[Path, Tensor] = {}
        self._bytes = 0

    def get(self, path: Path) -> Tensor:
        if path in self._kept:
            return self._kept[path]
        from attention_atlas.models.vlm.inputs import VlmInputs

        values = self.processor(
            images=[VlmInputs.open_image(path)], do_normalize=False, do_rescale=False, return_tensors="np"
        )["pixel_values"][0]
        if values.dtype != np.uint8:
            values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        pixels = torch.from_numpy(values)
        if self._bytes + pixels.nbytes <= self.keep_bytes:
            self._kept[path] = pixels
            self._bytes += pixels.nbytes
        return pixels

    def batch(self, paths: Sequence[Path]) -> Tensor:
        """(B,3,h,w) float32, normalised."""
        return torch.stack([(self.get(p).float() - self.mean) / self.std for p in paths])
