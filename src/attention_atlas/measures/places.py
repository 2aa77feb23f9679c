"""Where an image's tokens lie, and which of them belong to boxes. Areas are exact, in pixels of the image.

Axes: T image tokens with a place, S cells of the image, N sets of boxes, C maps.

Tokens may overlap (tiles and the thumbnail of the whole image), so the image is cut along the edges of
all tokens into cells, each covered by the same tokens everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

HALF = 0.5 - 1e-6  # float32 boxes: half a token inside counts as half


class Places:
    """boxes_T4: left, top, right, bottom of each token. area_T, centre_T2; cell_area_S (0 where no token is)
    and seen, its sum."""

    def __init__(self, boxes_T4: np.ndarray) -> None:
        boxes_T4 = np.asarray(boxes_T4, dtype=np.float64)
        self.boxes_T4 = boxes_T4
        self.area_T = (boxes_T4[:, 2] - boxes_T4[:, 0]) * (boxes_T4[:, 3] - boxes_T4[:, 1])
        self.centre_T2 = (boxes_T4[:, :2] + boxes_T4[:, 2:]) / 2
        # Edges of different grids that differ by rounding only are one edge.
        edges_T4 = np.round(boxes_T4, 2)
        self.x = np.unique(edges_T4[:, [0, 2]])
        self.y = np.unique(edges_T4[:, [1, 3]])
        self.shape = len(self.y) - 1, len(self.x) - 1
        left, right = (np.searchsorted(self.x, edges_T4[:, i]) for i in (0, 2))
        top, bottom = (np.searchsorted(self.y, edges_T4[:, i]) for i in (1, 3))
        grid = np.arange(self.shape[0] * self.shape[1]).reshape(self.shape)
        cells = [grid[t:b, a:z].ravel() for t, b, a, z in zip(top, bottom, left, right)]
        self._cell_P = torch.from_numpy(np.concatenate(cells))
        self._token_P = torch.from_numpy(np.repeat(np.arange(len(cells)), [len(c) for c in cells]))
        covered_S = np.zeros(grid.size, dtype=bool)
        covered_S[self._cell_P.numpy()] = True
        self.cell_area_S = np.outer(np.diff(self.y), np.diff(self.x)).ravel() * covered_S
        self.seen = float(self.cell_area_S.sum())

    def density(self, map_CT: Tensor) -> Tensor:
        """(C,S): the map per pixel. Each token's value is spread evenly over its box; where tokens overlap,
        they add up."""
        per_pixel_TC = (map_CT / torch.from_numpy(self.area_T).to(map_CT)).T
        density_SC = map_CT.new_zeros(len(self.cell_area_S), len(map_CT))
        return density_SC.index_add_(0, self._cell_P, per_pixel_TC[self._token_P]).T


@dataclass(frozen=True)
class Target:
    """One set of boxes as tokens and cells. inside_T: fraction of each token inside the boxes. hit_T: tokens
    that count as a hit. inside_S: area of each seen cell inside the boxes; area: its sum."""

    inside_T: np.ndarray
    hit_T: np.ndarray
    inside_S: np.ndarray
    area: float

    @classmethod
    def of(cls, places: Places, boxes: Sequence[Sequence[float]]) -> Target:
        """A token is a hit for a box if at least half of the token lies in the box, or half of the box in the
        token; if there is none, the tokens with the largest part in the box."""
        inside_T = shared(places.boxes_T4, boxes) / places.area_T
        hit_T = np.zeros(len(inside_T), dtype=bool)
        for box in boxes:
            area_T = shared(places.boxes_T4, [box])
            part_T = area_T / places.area_T
            found_T = (part_T >= HALF) | (area_T >= HALF * (box[2] - box[0]) * (box[3] - box[1]))
            if not found_T.any() and part_T.max() > 0:
                found_T = part_T >= part_T.max() - 1e-6
            hit_T |= found_T
        rows, columns = np.divmod(np.arange(places.shape[0] * places.shape[1]), places.shape[1])
        cells_S4 = np.stack([places.x[columns], places.y[rows], places.x[columns + 1], places.y[rows + 1]], 1)
        inside_S = shared(cells_S4, boxes) * (places.cell_area_S > 0)
        return cls(inside_T, hit_T, inside_S, float(inside_S.sum()))


def shared(regions_R4: np.ndarray, boxes: Sequence[Sequence[float]]) -> np.ndarray:
    """(R,) area that each region shares with the union of the boxes."""
    box_N4 = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    # Cut the plane along the edges of the boxes; each piece is inside the union or outside.
    x, y = np.unique(box_N4[:, [0, 2]]), np.unique(box_N4[:, [1, 3]])
    middle_x, middle_y = (x[:-1] + x[1:]) / 2, (y[:-1] + y[1:]) / 2
    in_x = (box_N4[:, :1] < middle_x) & (middle_x < box_N4[:, 2:3])
    in_y = (box_N4[:, 1:2] < middle_y) & (middle_y < box_N4[:, 3:4])
    union_YX = (in_y[:, :, None] & in_x[:, None, :]).any(0)

    def along(low_R: np.ndarray, high_R: np.ndarray, edges: np.ndarray) -> np.ndarray:
        return np.clip(
            np.minimum(high_R[:, None], edges[1:]) - np.maximum(low_R[:, None], edges[:-1]), 0, None
        )

    across_RX = along(regions_R4[:, 0], regions_R4[:, 2], x)
    down_RY = along(regions_R4[:, 1], regions_R4[:, 3], y)
    return ((down_RY @ union_YX.astype(np.float64)) * across_RX).sum(1)
