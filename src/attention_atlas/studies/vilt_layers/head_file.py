"""heads.npz: answers without each head, and with more and more heads pruned.

Arrays: ids, whole (N,2) and without (N,L,H,2) [accuracy 0..1, loss] over the questions for importance;
pruned_ids, steps (S,) numbers of heads, pruned_importance and pruned_random (M,S) accuracy 0..1 over others.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attention_atlas.errors import AtlasError, first_line
from attention_atlas.files import atomic_path
from attention_atlas.studies.vilt_layers.answers import read_answers
from attention_atlas.studies.vilt_layers.heads import importance, order_of, pruned, silence_each
from attention_atlas.training.questions import of_run, spread

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus

NAMES = ("ids", "whole", "without", "pruned_ids", "steps", "pruned_importance", "pruned_random")
STEPS = 12


def mask_heads(
    model: Any,
    corpus: Corpus,
    vocab: Any,
    config: Mapping[str, Any],
    folder: Path,
    *,
    splits: tuple[str, str],
    examples: tuple[int, int],
    device: str,
    seed: int = 0,
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """Rank heads by the increase of the loss on `splits[0]`; prune on `splits[1]` from the least important,
    and in a random order. `examples`: maximum number per split, evenly spaced (0: all)."""
    answers = read_answers(folder)
    judge, prune = (
        of_run(corpus, spread(sorted(corpus.split(name), key=lambda e: e.id), count), vocab, config, answers)
        for name, count in zip(splits, examples)
    )
    found = silence_each(model, judge, batch_size, device)
    _, loss_NLH = importance(found)
    order = order_of(loss_NLH.mean(0))
    shuffled = [order[i] for i in np.random.default_rng(seed).permutation(len(order))]
    # From none to eleven twelfths, and all.
    steps = sorted({round(len(order) * k / STEPS) for k in range(STEPS + 1)})
    by_importance, by_chance = pruned(model, prune, (order, shuffled), steps, batch_size, device)
    return {
        "ids": np.array([e.id for e in judge.examples]),
        **found,
        "pruned_ids": np.array([e.id for e in prune.examples]),
        "steps": np.array(steps),
        "pruned_importance": by_importance,
        "pruned_random": by_chance,
    }


def save_heads(path: str | Path, found: Mapping[str, np.ndarray]) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **{name: found[name] for name in NAMES})  # type: ignore[arg-type]


def read_heads(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays. Raises AtlasError for any other file."""
    try:
        with np.load(path) as file:
            return {name: file[name] for name in NAMES}
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise AtlasError(f"{path}: not what vilt_heads writes ({first_line(error)}); run it again") from None
