"""Attention sinks: keys that take mass whatever the query, found from received attention without the matrix.

    (kind,) = Capture(model, ["received"], layers="decoder")(**inputs).values()
    length = kind.received.shape[-1]
    sinks = find_sinks(kind.received[0].numpy(), np.tril(np.ones((length, length), bool)), roles)

Sinks are often the first tokens (Xiao et al. 2024, Efficient Streaming Language Models with Attention Sinks)
and delimiters (Sun et al. 2024, Massive Activations in Large Language Models). In vision-language models they
are also image tokens of the background (Kang et al. 2025, See What You Are Told: Visual Attention Sink in
Large Multimodal Models).

Axes: L layer, H head, Q query, K key, G group, N tokens of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from attention_atlas.capture.roles import ROLES
from attention_atlas.errors import AtlasError, ConfigError

EPSILON, TIMES, LEAST = 0.3, 10.0, 0.25


@dataclass(frozen=True)
class Sinks:
    """The sinks of every head, and the mass on groups of keys with and without them.

    score_LHK: mean attention to a key, over the queries that see it. is_sink_LHK: bool. mass_LH: share of all
    attention on the head's sinks. groups: roles, the names of G. with_LHG: share on each group;
    without_LHG: the same without the head's sinks, scaled to what is left (NaN if nothing is left).
    taken_LHK: share of all attention that a key takes; heads_K: share of heads in which it is a sink.
    """

    score_LHK: np.ndarray
    is_sink_LHK: np.ndarray
    taken_LHK: np.ndarray
    groups: list[str]
    with_LHG: np.ndarray
    without_LHG: np.ndarray

    @property
    def mass_LH(self) -> np.ndarray:
        return (self.taken_LHK * self.is_sink_LHK).sum(-1)

    @property
    def heads_K(self) -> np.ndarray:
        return self.is_sink_LHK.mean((0, 1))

    @property
    def positions(self) -> list[int]:
        """Keys that are a sink of some head, by decreasing mass taken as sinks."""
        taken_K = (self.taken_LHK * self.is_sink_LHK).mean((0, 1))
        return sorted(np.flatnonzero(self.heads_K).tolist(), key=lambda k: -taken_K[k])


def find_sinks(
    received_LHK: np.ndarray,
    visible: np.ndarray,
    roles: Sequence[str],
    *,
    epsilon: float | None = EPSILON,
    times: float | None = TIMES,
    least: float = LEAST,
    weights_Q: np.ndarray | None = None,
) -> Sinks:
    """The sinks of one example, by head.

    received_LHK: Σ over queries of α, the statistic `received`; its `queries=` leaves padding out. visible:
    bool (Q,K) or (L,Q,K), the keys that each of these queries may attend to. roles: of the K keys; padding is
    in no group. weights_Q: of the queries, where `received` is a weighted sum; default: 1 each.

    The score of a key is its mean attention over the queries that see it, α_k = Σ_q α_qk / #{q sees k}
    (Gu et al. 2025, When Attention Sink Emerges in Language Models). It is a sink of a head if its
    score is above `epsilon`, 0.3 in that paper, or `times` the uniform share u_k, the score under equal
    attention to all visible keys: one of many image tokens stands out far below 0.3. The score
    must also be above 2·u_k, because in short texts uniform attention gives the first token 0.3 as well.
    None disables one of the two. Keys that less than the share `least` of the queries see are not judged:
    the last ones are visible only to themselves.

    Raises AtlasError for shapes that do not fit, ConfigError without a threshold.
    """
    if epsilon is None and times is None:
        raise ConfigError("sinks: epsilon and times are both None; give at least one")
    received_LHK = np.asarray(received_LHK, dtype=np.float64)
    visible = np.asarray(visible, dtype=bool)
    visible_LQK = visible[None] if visible.ndim == 2 else visible
    keys = received_LHK.shape[-1]
    if received_LHK.ndim != 3 or visible_LQK.shape[-1] != keys or len(roles) != keys:
        raise AtlasError(
            f"sinks: received has shape {received_LHK.shape}, visible {visible.shape} and there are "
            f"{len(roles)} roles; give (L,H,K), (Q,K) or (L,Q,K), and K roles"
        )
    if len(visible_LQK) not in (1, len(received_LHK)):
        raise AtlasError(f"sinks: visible has {len(visible_LQK)} layers, received {len(received_LHK)}")
    weights_Q = np.ones(visible_LQK.shape[1]) if weights_Q is None else np.asarray(weights_Q, np.float64)
    count_LQ1 = np.maximum(visible_LQK.sum(-1, keepdims=True), 1)
    seen_L1K = np.einsum("q,lqk->lk", weights_Q, visible_LQK)[:, None]
    uniform_L1K = np.einsum("q,lqk->lk", weights_Q, visible_LQK / count_LQ1)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        score_LHK, share_L1K = received_LHK / seen_L1K, uniform_L1K / seen_L1K
    limits = [np.full_like(share_L1K, epsilon)] if epsilon is not None else []
    limits += [times * share_L1K] if times is not None else []
    limit_L1K = np.maximum(2 * share_L1K, np.minimum.reduce(limits))
    judged_L1K = seen_L1K >= max(least * weights_Q.sum(), 1e-12)
    is_sink_LHK = judged_L1K & (score_LHK > limit_L1K)
    taken_LHK = received_LHK / weights_Q.sum()
    groups = [role for role in ROLES if role in set(roles) and role != "pad"]
    member_KG = (np.asarray(roles)[:, None] == np.asarray(groups)).astype(np.float64)
    rest_LHK = np.where(is_sink_LHK, 0.0, taken_LHK)
    left_LH1 = rest_LHK.sum(-1, keepdims=True)
    without_LHG = np.full((*left_LH1.shape[:2], len(groups)), np.nan)
    np.divide(rest_LHK @ member_KG, left_LH1, out=without_LHG, where=left_LH1 > 1e-6)
    return Sinks(score_LHK, is_sink_LHK, taken_LHK, groups, taken_LHK @ member_KG, without_LHG)


@dataclass(frozen=True)
class Place:
    """Where an image token lies: its image; row and column, from 0, of its grid (an image cut into tiles
    has a grid for each) of `rows` × `columns`; edge: whether it touches the border of what the model sees of
    the image. detail: share of the image's tokens with less contrast, from 0 (plain) to 1."""

    image: int
    row: int
    column: int
    rows: int
    columns: int
    edge: bool
    detail: float | None = None


def places_of(
    boxes_K4: np.ndarray, image_K: np.ndarray, images: Sequence[np.ndarray] = ()
) -> dict[int, Place]:
    """{position: place} of every token with a box.

    boxes_K4, image_K: of `token_boxes`. images: (height,width,3) pixels of each; without them there is no
    `detail`. The contrast of a token is the standard deviation of the brightness in its box; ties count half.
    """
    found: dict[int, Place] = {}
    for image in sorted(set(image_K[image_K >= 0].tolist())):
        at_N = np.flatnonzero((image_K == image) & np.isfinite(boxes_K4).all(-1))
        if not len(at_N):
            continue
        boxes_N4 = np.asarray(boxes_K4, dtype=np.float64)[at_N]
        detail_N = _detail(images[image], boxes_N4) if len(images) else None
        low, high = boxes_N4[:, :2].min(0), boxes_N4[:, 2:].max(0)
        edge_N = ((boxes_N4[:, :2] - low < 0.5) | (high - boxes_N4[:, 2:] < 0.5)).any(-1)
        for first, last in _grids(boxes_N4):
            lefts, column_N = np.unique(boxes_N4[first:last, 0].round(2), return_inverse=True)
            tops, row_N = np.unique(boxes_N4[first:last, 1].round(2), return_inverse=True)
            for n in range(first, last):
                row, column = int(row_N[n - first]), int(column_N[n - first])
                detail = None if detail_N is None else float(detail_N[n])
                found[int(at_N[n])] = Place(
                    image, row, column, len(tops), len(lefts), bool(edge_N[n]), detail
                )
    return found


def _grids(boxes_N4: np.ndarray) -> list[tuple[int, int]]:
    """[first, last) of each grid of tokens in reading order; a new one starts where the order turns back."""
    starts = [0]
    for n in range(1, len(boxes_N4)):
        (left, top), (left_before, top_before) = boxes_N4[n, :2].round(2), boxes_N4[n - 1, :2].round(2)
        if (top, left) <= (top_before, left_before):
            starts.append(n)
    return list(zip(starts, [*starts[1:], len(boxes_N4)]))


def _detail(pixels: np.ndarray, boxes_N4: np.ndarray) -> np.ndarray:
    bright = np.asarray(pixels, dtype=np.float64) @ np.array([0.299, 0.587, 0.114])
    contrast = []
    for left, top, right, bottom in boxes_N4:
        x, y = int(left), int(top)
        part = bright[y : max(y + 1, int(np.ceil(bottom))), x : max(x + 1, int(np.ceil(right)))]
        contrast.append(round(float(part.std()), 6))
    of_N = np.array(contrast)
    less = (of_N[:, None] > of_N).sum(-1) + ((of_N[:, None] == of_N).sum(-1) - 1) / 2
    share: np.ndarray = less / max(1, len(of_N) - 1)
    return share
