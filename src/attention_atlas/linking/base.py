"""What a linking method is, and the rule that turns similarities into links.

Axes: P phrases of one text, N regions (or their descriptions) of its image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from attention_atlas.data.corpus import Example
from attention_atlas.errors import AtlasError
from attention_atlas.language.parsed import NounPhrase, Parse
from attention_atlas.regions.features_file import Regions


@dataclass
class LinkContext:
    """One text with the regions of its image: everything a linker may look at.

    `texts[i]` are the words of `phrases[i]`; `descriptions[r]` names region r in words.
    """

    parse: Parse
    phrases: list[NounPhrase]
    texts: list[str]
    descriptions: list[str]
    regions: Regions
    example: Example | None = None


class Linker(ABC):
    """Scores phrases against region descriptions; higher is more similar, NaN is 'cannot say'.

    `name` goes into links.jsonl and the tables; `measure` names the score. Similarities that differ by
    no more than `tolerance` are ties, and every region tied at the top is linked. Every linker's
    constructor accepts `device` (a torch device name or 'auto'), because the stage passes it to all.
    """

    name: str
    measure: str
    tolerance: float

    def prepare(self, strings: Iterable[str]) -> None:  # noqa: B027  (a linker may need no preparation)
        """Compute, in batches, what `similarity` needs of these strings. Each string is done once."""

    @abstractmethod
    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        """(P, N) float64 similarities."""

    def similarity_in(self, context: LinkContext) -> np.ndarray:
        """(P, N) similarities of one example; only linkers that see more than words replace this."""
        return self.similarity(context.texts, context.descriptions)


def link(similarity_PN: np.ndarray, tolerance: float) -> list[list[int]]:
    """Regions linked to each phrase: all whose similarity lies within `tolerance` of the row's maximum.

    The paper (section 4) links several objects when their cosine is the same, as for "six chairs" whose
    regions carry one label. NaN never links; a row of NaN gives no link. Region order is ascending.
    """
    if similarity_PN.ndim != 2:
        raise AtlasError(f"similarity: {similarity_PN.ndim} axes; give phrases x regions")
    if tolerance < 0:
        raise AtlasError(f"tolerance: {tolerance} is negative; give 0 or a small positive number")
    filled_PN = np.where(np.isnan(similarity_PN), -np.inf, similarity_PN)
    top_P = filled_PN.max(axis=1, initial=-np.inf)
    linked_PN = (filled_PN >= top_P[:, None] - tolerance) & np.isfinite(filled_PN)
    return [np.flatnonzero(row).tolist() for row in linked_PN]


def cosine(a_PD: np.ndarray, b_ND: np.ndarray) -> np.ndarray:
    """(P, N) cosine similarities; NaN where a vector is zero or NaN (nothing known of the words)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a_PD = a_PD / np.linalg.norm(a_PD, axis=1, keepdims=True)
        b_ND = b_ND / np.linalg.norm(b_ND, axis=1, keepdims=True)
    # einsum, not BLAS: the same pair of vectors gives the same bits wherever it stands in the matrix.
    return np.einsum("pd,nd->pn", a_PD, b_ND)
