"""Does a vision LLM look? Its texts with the own picture against the same model before another picture or a
grey one, and against a model tuned without pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.models.vllm.loaded import LoadedVllm
    from attention_atlas.vllm.data import Sample

OWN, OTHER, GREY, BLIND = "own picture", "another picture", "grey picture", "tuned without pictures"


def other_pictures(samples: Sequence[Sample]) -> list[Path]:
    """For each sample the picture of the next sample that shows another one, around the end.

    Raises AtlasError when all samples show one picture.
    """
    paths = [s.image for s in samples]
    if len(set(paths)) < 2:
        raise AtlasError("looking: samples of one picture only; give at least two pictures")
    count = len(paths)
    return [
        next(paths[(i + k) % count] for k in range(1, count) if paths[(i + k) % count] != own)
        for i, own in enumerate(paths)
    ]


def log_probs(
    loaded: LoadedVllm,
    samples: Sequence[Sample],
    blind: LoadedVllm | None = None,
    batch_size: int = 32,
) -> dict[str, np.ndarray]:
    """{condition: (N,) summed log-probability of each text, nats} and `tokens` (N,), EOS among them."""
    from PIL import Image

    shown: dict[str, Sequence[Any]] = {OWN: [s.image for s in samples], OTHER: other_pictures(samples)}
    grey = Image.new("RGB", (64, 64), (128, 128, 128))
    shown[GREY] = [grey] * len(samples)
    found: dict[str, np.ndarray] = {}
    models = [(name, loaded, images) for name, images in shown.items()]
    if blind is not None:
        models.append((BLIND, blind, shown[OWN]))
    for name, model, images in models:
        pairs: list[tuple[float, int]] = []
        for at in range(0, len(samples), batch_size):
            part = slice(at, at + batch_size)
            pairs += model.log_prob(samples[part], images=images[part])
        found[name] = np.array([value for value, _ in pairs])
        if name == OWN:
            found["tokens"] = np.array([number for _, number in pairs], dtype=np.float64)
    return found


def gain_rows(
    found: Mapping[str, np.ndarray], images: Sequence[Any], about: Mapping[str, str], seed: int = 0
) -> list[dict[str, Any]]:
    """Rows of a metric table: `log-probability per token` under each condition, and `gain per token` of the
    own picture over each other condition, nats, 95 % bootstrap over pictures. about: experiment, model,
    data."""
    from attention_atlas.metrics.bootstrap import interval, ratio, resampled_ratio, resampling_matrix

    order = {image: i for i, image in enumerate(dict.fromkeys(images))}
    of_N = np.array([order[image] for image in images])

    def by_image(values_N: np.ndarray) -> np.ndarray:
        return np.bincount(of_N, weights=values_N, minlength=len(order))

    tokens_I = by_image(found["tokens"])
    counts_BI = resampling_matrix(len(order), seed=seed)
    rows = []
    for metric, condition, values_N in (
        *(("log-probability per token", c, found[c]) for c in (OWN, OTHER, GREY, BLIND) if c in found),
        *(("gain per token", c, found[OWN] - found[c]) for c in (OTHER, GREY, BLIND) if c in found),
    ):
        num_I = by_image(values_N)
        low, high = interval(resampled_ratio(num_I, tokens_I, counts_BI))
        value = float(ratio(num_I, tokens_I))
        row = {**about, "kind": "text", "metric": metric, "condition": condition, "value": value}
        rows.append({**row, "ci_low": float(low), "ci_high": float(high), "n": len(images)})
    return rows


def caption_rows(
    loaded: LoadedVllm,
    samples: Sequence[Sample],
    references: Mapping[Path, Sequence[str]],
    about: Mapping[str, str],
    blind: LoadedVllm | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Rows of a metric table: CIDEr (per cent) of greedy captions of each picture once, with the own picture,
    another one, and by the blind model; 95 % bootstrap over pictures."""
    from attention_atlas.metrics.bootstrap import interval, ratio, resampled_ratio, resampling_matrix
    from attention_atlas.text_metrics.cider import cider
    from attention_atlas.text_metrics.tokenize import plain

    once = list({s.image: replace(s, text="") for s in samples}.values())
    wanted = {str(p): plain(list(texts)) for p, texts in references.items()}
    runs: list[tuple[str, LoadedVllm, list[Path]]] = [
        (OWN, loaded, [s.image for s in once]),
        (OTHER, loaded, other_pictures(once)),
    ]
    if blind is not None:
        runs.append((BLIND, blind, [s.image for s in once]))
    counts_BI = resampling_matrix(len(once), seed=seed)
    rows = []
    for name, model, images in runs:
        texts: list[str] = []
        for at in range(0, len(once), batch_size):
            part = slice(at, at + batch_size)
            texts += model.write(once[part], images=images[part])
        said = {str(s.image): text for s, text in zip(once, plain(texts))}
        scores = cider(wanted, said)[1]
        num_I = 100 * np.array([scores[str(s.image)] for s in once])
        low, high = interval(resampled_ratio(num_I, np.ones(len(once)), counts_BI))
        row = {**about, "kind": "text", "metric": "CIDEr", "condition": name}
        value = float(ratio(num_I, np.ones(len(once))))
        rows.append({**row, "value": value, "ci_low": float(low), "ci_high": float(high), "n": len(once)})
    return rows
