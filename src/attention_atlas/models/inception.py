"""Inception score and FID, computed with the Inception-v3 network on which both are defined.

The network is torch-fidelity's port (Apache 2.0) of the TensorFlow graph of 2015-12-05, including the graph's
method of scaling images to 299 pixels. Axes: N images, S side in pixels, K = 1008 classes, D = 2048
units.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import io
import pickle
import re
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from attention_atlas.errors import AtlasError
from attention_atlas.files import sha256
from attention_atlas.measures.generation import frechet_distance, score_of

PUBLISHED = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
SPLITS = 10
# As for torch.hub, a file name ends with a hyphen and the first digits of its sha256.
NAMED_HASH = re.compile(r"-([0-9a-f]{8,64})\.pth$")


class InceptionReader:
    """The network with the weights of a file. Raises AtlasError as `read_network` does."""

    def __init__(self, path: str | Path, device: str = "cpu") -> None:
        self.network = read_network(path).to(device)
        self.device = device

    @torch.no_grad()
    def __call__(self, batches: Iterable[Tensor]) -> tuple[np.ndarray, np.ndarray]:
        """Batches of uint8 images (B,3,S,S) -> (probabilities (N,K), features (N,D)). As in the published
        score, the probabilities omit the last layer's bias."""
        found, features = [], []
        for pixels_BCSS in batches:
            features_BD, logits_BK = self.network(pixels_BCSS.to(self.device))
            found.append(logits_BK.double().softmax(-1).cpu().numpy())
            features.append(features_BD.cpu().numpy())
        return np.concatenate(found), np.concatenate(features)

    def scores(self, made: Iterable[Tensor], real: Iterable[Tensor]) -> dict[str, float]:
        """ "Inception score" (mean over 10 parts), "Inception score of all images" (over all at once) and
        "FID" of the generated images against the real ones."""
        probabilities_NK, made_ND = self(made)
        _, real_ND = self(real)
        return {
            "Inception score": split_score(probabilities_NK),
            "Inception score of all images": score_of(probabilities_NK),
            "FID": frechet_distance(made_ND, real_ND),
        }


def split_score(probabilities_NK: ArrayLike, splits: int = SPLITS, seed: int = 0) -> float:
    """Mean of the score over `splits` parts of the images (Salimans et al. 2016).

    Shuffles the images first, deterministically in seed and N, because in a data set's own order a part
    would contain only few categories. Raises AtlasError for fewer images than parts.
    """
    p_NK = np.asarray(probabilities_NK, np.float64)
    if len(p_NK) < splits:
        raise AtlasError(
            f"Inception score: {len(p_NK)} images for {splits} parts; raise evaluator.judged or unset "
            f"evaluator.inception"
        )
    parts = np.array_split(np.random.default_rng(seed).permutation(len(p_NK)), splits)
    return float(np.mean([score_of(p_NK[part]) for part in parts]))


def as_bytes(pixels_NCSS: Tensor) -> Tensor:
    """Images in -1..1 -> uint8, rounded and clipped."""
    return ((pixels_NCSS.clamp(-1, 1) + 1) * 127.5).round().byte()


def read_network(path: str | Path) -> Any:
    """torch-fidelity's network with the weights of a file (a state dict), frozen and in evaluation mode.

    Raises AtlasError for a file that is missing, truncated, of another network or with a wrong checksum, and
    if torch-fidelity is not installed.
    """
    path = Path(path)
    if not path.is_file():
        raise AtlasError(f"{path}: no such file; it is published at {PUBLISHED}")
    about = path.stat()
    return copy.deepcopy(_network(path.resolve(), about.st_mtime_ns, about.st_size))


@lru_cache(maxsize=1)  # each run of a study requests it several times
def _network(path: Path, changed: int, size: int) -> Any:
    state = _state(path)
    # The class unpickles its file without checks, so it gets a copy of the tensors read safely.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    buffer.seek(0)
    try:
        network = network_class()(
            "inception-v3", ["2048", "logits_unbiased"], feature_extractor_weights_path=buffer
        )
    except (RuntimeError, TypeError, AttributeError):
        raise AtlasError(
            f"{path}: not the weights of the 2015 Inception-v3 (1008 classes); it is published at {PUBLISHED}"
        ) from None
    return network.eval()


def network_class() -> Any:
    """torch-fidelity's class. Imports only this network's modules, because the package needs torchvision for
    others."""
    name = "torch_fidelity"
    spec = importlib.util.find_spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise AtlasError(
            "torch-fidelity is not installed, which evaluator.inception needs; run pip install --no-deps "
            "torch-fidelity==0.4.0"
        )
    whole = sys.modules.get(name)
    if whole is None:
        bare = ModuleType(name)
        bare.__path__ = list(spec.submodule_search_locations)
        sys.modules[name] = bare
    try:
        return importlib.import_module(f"{name}.feature_extractor_inceptionv3").FeatureExtractorInceptionV3
    finally:
        if whole is None:
            del sys.modules[name]


def _state(path: Path) -> Any:
    named = NAMED_HASH.search(path.name)
    if named and not sha256(path).startswith(named[1]):
        raise AtlasError(
            f"{path}: damaged or truncated: its sha256 does not begin with {named[1]} as in its name; "
            f"download it again from {PUBLISHED}"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError):
        raise AtlasError(
            f"{path}: damaged, or not only tensors; download it again from {PUBLISHED}"
        ) from None
