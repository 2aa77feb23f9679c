"""Does a vision LLM use the image? Its texts with their own image against the same model with another
image or a grey one, and against a model tuned without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vlm.loaded import LoadedVlm
    from attention_atlas.models.vlm.samples import Sample

# Values of the column `input`: the model's own image, another one, a grey one; tuned without images.
OWN, OTHER, GREY, BLIND = "", "other", "blank", "none"


def other_images(samples: Sequence[Sample]) -> list[Path]:
    """For each sample the image of the next sample with a different one, wrapping around at the end.

    Raises AtlasError if all samples show one image.
    """
    paths = [s.image for s in samples]
    if len(set(paths)) < 2:
        raise AtlasError("image ablation: samples of one image only; give at least two images")
    count = len(paths)
    return [
        next(paths[(i + k) % count] for k in range(1, count) if paths[(i + k) % count] != own)
        for i, own in enumerate(paths)
    ]


def log_probs(loaded: LoadedVlm, samples: Sequence[Sample], batch_size: int = 32) -> dict[str, np.ndarray]:
    """{input: (N,) summed log-probability of each text, nats} and `tokens` (N,), including EOS."""
    from PIL import Image

    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    own, tokens = _summed(loaded, samples, [s.image for s in samples], batch_size)
    return {
        OWN: own,
        "tokens": tokens,
        OTHER: _summed(loaded, samples, other_images(samples), batch_size)[0],
        GREY: _summed(loaded, samples, [grey] * len(samples), batch_size)[0],
    }


def blind_log_probs(
    blind: LoadedVlm, samples: Sequence[Sample], batch_size: int = 32
) -> dict[str, np.ndarray]:
    """The same for the model tuned without images: {BLIND: (N,)}, to compare with any other model."""
    return {BLIND: _summed(blind, samples, [s.image for s in samples], batch_size)[0]}


def _summed(
    model: LoadedVlm, samples: Sequence[Sample], images: Sequence[Any], batch_size: int
) -> tuple[np.ndarray, np.ndarray]:
    pairs: list[tuple[float, int]] = []
    for at in range(0, len(samples), batch_size):
        part = slice(at, at + batch_size)
        pairs += model.log_prob(samples[part], images=images[part])
    values, tokens = zip(*pairs)
    return np.array(values), np.array(tokens, dtype=np.float64)


def gain_rows(
    found: Mapping[str, np.ndarray], images: Sequence[Any], about: Mapping[str, str], seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of a metric table: `log-probability per token` with each input, and the gain of the own image
    `against` each other input, nats, 95 % bootstrap over images. about: study, model, data."""
    from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, resampling_matrix

    order = {image: i for i, image in enumerate(dict.fromkeys(images))}
    of_N = np.array([order[image] for image in images])

    def by_image(values_N: np.ndarray) -> np.ndarray:
        return np.bincount(of_N, weights=values_N, minlength=len(order))

    tokens_I = by_image(found["tokens"])
    counts_BI = resampling_matrix(len(order), seed=seed)
    rows = []
    for column, shown, values_N in (
        *(("input", c, found[c]) for c in (OWN, OTHER, GREY, BLIND) if c in found),
        *(("against", c, found[OWN] - found[c]) for c in (OTHER, GREY, BLIND) if c in found),
    ):
        num_I = by_image(values_N)
        low, high = interval(resampled_ratio(num_I, tokens_I, counts_BI))
        value = float(ratio(num_I, tokens_I))
        row = {**about, "kind": "text", "measure": "log-probability per token", column: shown}
        rows.append({**row, "value": value, "ci_low": float(low), "ci_high": float(high), "n": len(images)})
    return rows


def captions(
    loaded: LoadedVlm, samples: Sequence[Sample], inputs: Sequence[str], batch_size: int = 32
) -> dict[str, dict[Path, str]]:
    """Greedy captions of each image once, with each input: {input: {image: caption}}. OTHER: with another
    image; any other name: with its own."""
    once = list({s.image: replace(s, text="") for s in samples}.values())
    found = {}
    for shown in inputs:
        images = other_images(once) if shown == OTHER else [s.image for s in once]
        texts: list[str] = []
        for at in range(0, len(once), batch_size):
            part = slice(at, at + batch_size)
            texts += loaded.write(once[part], images=images[part])
        found[shown] = {s.image: text for s, text in zip(once, texts)}
    return found


def caption_rows(
    generated: Mapping[str, Mapping[Path, str]],
    references: Mapping[Path, Sequence[str]],
    about: Mapping[str, str],
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of a metric table: CIDEr (per cent) of `generated` captions with each input, 95 % bootstrap over
    images."""
    from attention_atlas.measures.bootstrap import interval, ratio, resampled_ratio, resampling_matrix
    from attention_atlas.measures.text.cider import cider
    from attention_atlas.measures.text.tokenize import plain

    wanted = {str(p): plain(list(texts)) for p, texts in references.items()}
    rows = []
    for name, texts in generated.items():
        one_I = np.ones(len(texts))
        hypotheses = dict(zip(map(str, texts), plain(list(texts.values()))))
        scores = cider(wanted, hypotheses)[1]
        num_I = 100 * np.array([scores[image] for image in hypotheses])
        low, high = interval(resampled_ratio(num_I, one_I, resampling_matrix(len(texts), seed=seed)))
        row = {**about, "kind": "text", "measure": "CIDEr", "input": name}
        value = float(ratio(num_I, one_I))
        rows.append({**row, "value": value, "ci_low": float(low), "ci_high": float(high), "n": len(texts)})
    return rows
