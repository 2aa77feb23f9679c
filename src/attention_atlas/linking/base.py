"""The interface of linking methods, and the rule that turns similarities into links.

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
    """The input of a linker: one text with the regions of its image.

    `texts[i]` are the words of `phrases[i]`; `descriptions[r]` describes region r.
    """

    parse: Parse
    phrases: list[NounPhrase]
    texts: list[str]
    descriptions: list[str]
    regions: Regions
    example: Example | None = None


class Linker(ABC):
    """Scores phrases against region descriptions; higher is more similar, NaN is undefined.

    `name` is used in links.jsonl and the tables; `measure` names the score. Similarities within `tolerance`
    are ties, and all regions tied for the maximum are linked. Every linker's constructor accepts `device` (a
    torch device name or 'auto'), because the stage passes it to all of them.
    """

    name: str
    measure: str
    tolerance: float

    def prepare(self, strings: Iterable[str]) -> None:  # noqa: B027  (a linker may need no preparation)
        """Precompute, in batches and once per string, what `similarity` needs for these strings."""

    @abstractmethod
    def similarity(self, phrases: Sequence[str], descriptions: Sequence[str]) -> np.ndarray:
        """(P, N) float64 similarities."""

    def similarity_in(self, context: LinkContext) -> np.ndarray:
        """(P, N) similarities of one example; override it in linkers that use more than words."""
        return self.similarity(context.texts, context.descriptions)


def link(similarity_PN: np.ndarray, tolerance: float) -> list[list[int]]:
    """Regions linked to each phrase: all with a similarity within `tolerance` of the row's maximum.

    The paper (section 4) links several objects if their cosine is the same, as for "six chairs" whose regions
    have the same label. NaN is never linked; a row of NaN gives no link. Regions are in ascending order.
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
    """(P, N) cosine similarities; NaN where a vector is zero or NaN (no known words)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        a_PD = a_PD / np.linalg.norm(a_PD, axis=1, keepdims=True)
        b_ND = b_ND / np.linalg.norm(b_ND, axis=1, keepdims=True)
    # einsum, not BLAS: bit-identical results for a pair of vectors at any position in the matrix.
    return np.einsum("pd,nd->pn", a_PD, b_ND)
