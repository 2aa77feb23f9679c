"""Winoground's scores (Thrush et al. 2022, section 3.2): two images, two captions of the same words in
another order; s(c, i) is the log-probability of caption c given image i.

text score    each image prefers its own caption: s00 > s10 and s11 > s01          (chance 1/4)
image score   each caption prefers its own image: s00 > s01 and s11 > s10          (chance 1/4)
group score   both                                                                  (chance 1/6)
matching      the right pairing as a whole is preferred: s00 + s11 > s01 + s10       (chance 1/2)

The text score of a likelihood also tests which caption is the more probable sentence; `matching` does not,
because each caption counts once on both sides. Chance is for scores in random order without ties; a tie is
not a preference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attention_atlas.errors import AtlasError

if TYPE_CHECKING:
    from attention_atlas.data.corpus import Corpus, Example
    from attention_atlas.models.vlm.loaded import LoadedVlm

CHANCE = {"text score": 1 / 4, "image score": 1 / 4, "group score": 1 / 6, "matching": 1 / 2}


@dataclass(frozen=True)
class Quadruple:
    """Two examples, each true of its own image only; both have the same `extra.pair`."""

    id: str
    first: Example
    second: Example


def quadruples(examples: Sequence[Example]) -> list[Quadruple]:
    """Pairs of examples by `extra.pair`, sorted; none for a corpus without. Examples without a value have no
    pair. Raises AtlasError for a pair without exactly two examples of two images."""
    by_pair: dict[str, list[Example]] = {}
    for example in examples:
        if example.extra.get("pair") not in (None, ""):
            by_pair.setdefault(str(example.extra["pair"]), []).append(example)
    out = []
    for name in sorted(by_pair):
        both = by_pair[name]
        if len(both) != 2 or both[0].image_id == both[1].image_id:
            raise AtlasError(
                f"pair '{name}': {len(both)} captions of {len({e.image_id for e in both})} images, a "
                "pair has two of two; keep both of a pair in one split or remove it"
            )
        out.append(Quadruple(name, both[0], both[1]))
    return out


def score_quadruples(
    loaded: LoadedVlm, corpus: Corpus, found: Sequence[Quadruple], prompt: str, batch: int = 8
) -> np.ndarray:
    """s (N,2,2): caption, image; Σ log p of the caption, in nats."""
    from attention_atlas.models.vlm.samples import Sample

    calls: list[Sample] = []
    for quadruple in found:
        for caption in (quadruple.first, quadruple.second):
            for shown in (quadruple.first, quadruple.second):
                path: Path = corpus.image_path(shown.image_id)
                calls.append(Sample(caption.id, shown.image_id, path, prompt, caption.text))
    scores: list[float] = []
    for at in range(0, len(calls), batch):
        scores += [total for total, _ in loaded.log_prob(calls[at : at + batch], end=False)]
    return np.array(scores).reshape(len(found), 2, 2)


def winoground(score_N22: np.ndarray) -> dict[str, np.ndarray]:
    """{score: (N,) bool} of the four scores above."""
    s00, s01, s10, s11 = (score_N22[:, c, i] for c in (0, 1) for i in (0, 1))
    text = (s00 > s10) & (s11 > s01)
    image = (s00 > s01) & (s11 > s10)
    return {
        "text score": text,
        "image score": image,
        "group score": text & image,
        "matching": s00 + s11 > s01 + s10,
    }
