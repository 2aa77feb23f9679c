"""The four phases of multi-modal inference (Wei et al. 2025, figures 1 and 3), found by a rule.

The paper identifies them in the curve of inter-modal similarity: it rises (I Alignment), falls (II
Intra-modal Encoding), rises swiftly (III Inter-modal Encoding) and falls (IV Output Preparation). Here: of
all paths up, down, up, down with turns a ≤ b ≤ c, take the one with the largest total change,

    (s_a − s_0) + (s_a − s_b) + (s_c − s_b) + (s_c − s_L),

that is, the largest s_a − s_b + s_c; in a tie the first a, b and c. A change smaller than `least` × (max s −
min s) is not a phase:
  no II or no III (no dip):  the curve is one rise, III, up to its first maximum, and one fall, IV: a = b = 0;
  no I:                      a = 0;
  no IV:                     c = L.
The rule is applied to the mean curve, and to the mean of each bootstrap resample of the images, which shows
how stable the turns are. Any wiggly curve has four such intervals: `chance_four` is the frequency for the
same steps in random order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from attention_atlas.errors import AtlasError

NAMES = ("I Alignment", "II Intra-modal Encoding", "III Inter-modal Encoding", "IV Output Preparation")
LEAST = 0.05


@dataclass(frozen=True)
class Phases:
    """Turns (B,3): layers a, b, c at which phases I, II, III end; present (B,4): which phases exist."""

    turns_B3: np.ndarray
    present_B4: np.ndarray

    def edges(self, layers: int, index: int = 0) -> list[tuple[str, int, int]]:
        """(name, first layer, last layer) of the existing phases; neighbours share the layer of the turn."""
        at = [0, *map(int, self.turns_B3[index]), layers - 1]
        return [(n, at[i], at[i + 1]) for i, n in enumerate(NAMES) if self.present_B4[index, i]]


def find_phases(curve_BL: np.ndarray, least: float = LEAST) -> Phases:
    """Phases of each curve, by the rule above; layers are the indices of the last axis.
    Raises AtlasError for fewer than two layers or a value that is not finite."""
    s = np.atleast_2d(np.asarray(curve_BL, dtype=np.float64))
    batch, layers = s.shape
    if layers < 2 or not np.isfinite(s).all():
        raise AtlasError("phases: a curve needs at least two layers with finite values; look at the dump")
    row = np.arange(batch)
    before = np.maximum.accumulate(s, axis=1)  # the largest s_a with a ≤ b
    after = np.maximum.accumulate(s[:, ::-1], axis=1)[:, ::-1]  # the largest s_c with c ≥ b
    b = (before + after - s).argmax(1)
    index = np.arange(layers)
    a = np.where(index <= b[:, None], s, -np.inf).argmax(1)
    c = np.where(index >= b[:, None], s, -np.inf).argmax(1)
    floor = least * (s.max(1) - s.min(1))

    def there(up: np.ndarray, down: np.ndarray) -> np.ndarray:
        change = s[row, up] - s[row, down]
        return (change >= floor) & (change > 0)

    dip = there(a, b) & there(c, b)  # II and III: else the curve is one rise and one fall
    a, b = np.where(dip, a, 0), np.where(dip, b, 0)
    c = np.where(dip, c, s.argmax(1))
    last = np.full_like(c, layers - 1)
    first = there(a, np.zeros_like(a)) & dip
    a = np.where(first, a, 0)
    third, fourth = there(c, b), there(c, last)
    c = np.where(third & ~fourth, last, c)
    c = np.where(fourth & ~third, b, c)
    second = dip
    return Phases(np.stack([a, b, c], 1), np.stack([first, second, third, fourth], 1))


@dataclass(frozen=True)
class Stability:
    """phases: of the mean curve. share: share of resamples with each phase (4,) or with all phases.
    low, high: 95 % interval of the turns over resamples (3,); near: share of resamples whose turn is at most
    one layer off. All but the phases are NaN for a single image."""

    phases: Phases
    share_4: np.ndarray
    share_all: float
    low_3: np.ndarray
    high_3: np.ndarray
    near_3: np.ndarray


def bootstrap_phases(
    curve_NL: np.ndarray, image_of: np.ndarray, resamples: int = 2000, seed: int = 0, least: float = LEAST
) -> Stability:
    """Phases of the mean over samples (N,L), and their stability under resampling of the images."""
    from attention_atlas.measures.bootstrap import LEAST_IMAGES, resampled_ratio
    from attention_atlas.measures.means import Sample

    sample = Sample.of(image_of, resamples, seed)
    seen = find_phases(curve_NL.mean(0), least)
    if sample.counts_BI.shape[1] < LEAST_IMAGES:
        none_3 = np.full(3, np.nan)
        return Stability(seen, np.full(4, np.nan), float("nan"), none_3, none_3, none_3)
    curve_BL = resampled_ratio(*sample.sums(curve_NL), sample.counts_BI)
    drawn = find_phases(curve_BL, least)
    low, high = np.percentile(drawn.turns_B3, [2.5, 97.5], axis=0)
    near = (np.abs(drawn.turns_B3 - seen.turns_B3) <= 1).mean(0)
    share_all = float(drawn.present_B4.all(1).mean())
    return Stability(seen, drawn.present_B4.mean(0), share_all, low, high, near)


def chance_four(curve_L: np.ndarray, shuffles: int = 1000, seed: int = 0, least: float = LEAST) -> float:
    """Share of random orders of the curve's steps in which the rule finds all four phases."""
    steps = np.diff(np.asarray(curve_L, dtype=np.float64))
    shuffled = np.random.default_rng([seed, 23]).permuted(np.tile(steps, (shuffles, 1)), axis=1)
    curves = np.concatenate([np.zeros((shuffles, 1)), shuffled.cumsum(1)], 1)
    return float(find_phases(curves, least).present_B4.all(1).mean())
