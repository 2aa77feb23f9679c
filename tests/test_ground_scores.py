"""Scores of maps against boxes, by hand and against pixels one by one; picking heads without seeing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from attention_atlas.ground.heads import best_heads, compared, estimate, folds_of, of_heads, picked
from attention_atlas.ground.scores import CHANCES, chances, scores
from attention_atlas.measures.places import Places, Target, shared

GRID = [(x, y, x + 10, y + 10) for y in range(0, 40, 10) for x in range(0, 40, 10)]


def one(values: dict[int, float], boxes, regions=GRID) -> list[float]:
    """The three scores of one map, given as {token: value}."""
    places = Places(np.array(regions))
    map_CT = torch.zeros(1, len(regions))
    for token, value in values.items():
        map_CT[0, token] = value
    return scores(map_CT, places, [Target.of(places, boxes)])[:, 0, 0].tolist()


def test_scores_by_hand():
    # Tokens 5 and 6 are inside. The mean is 1/16: the region is tokens 0, 5, 6; 200 of 300 pixels are shared.
    assert one({5: 0.5, 6: 0.3, 0: 0.2}, [(10, 10, 30, 20)]) == pytest.approx([1, 0.8, 2 / 3])
    # The sum does not matter. 0.05 is less than the mean: the region is 5 and 6, exactly the box.
    assert one({5: 2.0, 6: 1.8, 0: 0.2}, [(10, 10, 30, 20)]) == pytest.approx([1, 0.95, 1])
    assert one({0: 1.0}, [(10, 10, 30, 20)]) == [0, 0, 0]
    # Half of token 4 is inside: it is a hit, and counts half. Union: 250 pixels and the other half.
    assert one({4: 1.0}, [(5, 10, 30, 20)]) == pytest.approx([1, 0.5, 50 / 300])
    # Less than half: no hit.
    assert one({4: 1.0}, [(6, 10, 30, 20)]) == pytest.approx([0, 0.4, 40 / 300])
    # Two boxes that overlap are one region of 300 pixels.
    assert one({5: 0.5, 6: 0.5}, [(10, 10, 25, 20), (15, 10, 40, 20)]) == pytest.approx([1, 1, 2 / 3])
    # Of two equal largest values, each counts half.
    assert one({5: 0.5, 0: 0.5}, [(10, 10, 20, 20)]) == pytest.approx([0.5, 0.5, 0.5])
    # A head that does not see the image finds nothing.
    assert one({}, [(10, 10, 20, 20)]) == [0, 0, 0]


def test_hits_of_boxes_smaller_than_a_token():
    places = Places(np.array(GRID))
    assert np.flatnonzero(Target.of(places, [(1, 1, 3, 3)]).hit_T).tolist() == [0]
    assert np.flatnonzero(Target.of(places, [(8, 2, 12, 4)]).hit_T).tolist() == [0, 1]  # half in each
    assert np.flatnonzero(Target.of(places, [(8, 8, 12, 12)]).hit_T).tolist() == [
        0,
        1,
        4,
        5,
    ]  # a quarter each
    assert np.flatnonzero(Target.of(places, [(7, 7, 12, 12)]).hit_T).tolist() == [0]  # 9 of 25 pixels


def test_tiles_and_their_thumbnail_add_up():
    whole_and_tiles = [(0, 0, 40, 40), *[(x, y, x + 20, y + 20) for y in (0, 20) for x in (0, 20)]]
    # The thumbnail's token contains the box: a hit, too. Per pixel, the first tile has 0.5/400 + 0.5/1600,
    # the rest 0.5/1600; the mean is 1/1600.
    found = one({0: 0.5, 1: 0.5}, [(0, 0, 20, 20)], whole_and_tiles)
    assert found == pytest.approx([1, 0.5 / 4 + 0.5, 1])
    # A box that fills half of the thumbnail's token is a hit for it.
    assert one({0: 1.0}, [(0, 0, 20, 40)], whole_and_tiles) == pytest.approx([1, 0.5, 0.5])


def pixels(map_T: np.ndarray, regions: np.ndarray, boxes, size: tuple[int, int]) -> tuple[float, float]:
    """(mass, IoU) by counting pixels, for regions and boxes at whole pixels."""
    density, seen, inside = np.zeros(size), np.zeros(size, bool), np.zeros(size, bool)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
    for value, (left, top, right, bottom) in zip(map_T / map_T.sum(), regions):
        density[top:bottom, left:right] += value / ((bottom - top) * (right - left))
        seen[top:bottom, left:right] = True
    mask = seen & (density >= density[seen].mean())
    return density[inside].sum(), (mask & inside).sum() / (mask | (inside & seen)).sum()


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_counted_pixels(seed):
    rng = np.random.default_rng(seed)
    height, width = 48, 60

    def rectangles(count: int) -> np.ndarray:
        first = np.stack([rng.integers(0, width - 12, count), rng.integers(0, height - 12, count)], 1)
        return np.concatenate([first, first + rng.integers(3, 12, (count, 2))], 1)

    grid = np.array([(x, y, x + 12, y + 12) for y in range(0, 48, 12) for x in range(0, 60, 12)])
    regions = grid if seed % 2 else np.concatenate([grid, rectangles(6)])
    regions = regions[rng.permutation(len(regions))[: len(regions) - seed]]  # parts may stay unseen
    places, targets = Places(regions), [rectangles(1 + seed % 3) for _ in range(3)]
    map_CT = rng.random((5, len(regions))) ** 3
    found_MCN = scores(torch.from_numpy(map_CT), places, [Target.of(places, boxes) for boxes in targets])
    for c, n in np.ndindex(found_MCN.shape[1:]):
        expected = pixels(map_CT[c], regions, targets[n], (height, width))
        assert found_MCN[1:, c, n].tolist() == pytest.approx(expected, abs=1e-9)
        boxes = targets[n]
        region = regions[map_CT[c].argmax() : map_CT[c].argmax() + 1]
        parts = [float(shared(region, [box])[0]) for box in boxes]
        area = float(np.prod(region[0, 2:] - region[0, :2]))
        large = [(b[2] - b[0]) * (b[3] - b[1]) for b in boxes]
        if any(part >= area / 2 or part >= own / 2 for part, own in zip(parts, large)):
            assert found_MCN[0, c, n] == 1
        elif max(parts) == 0:
            assert found_MCN[0, c, n] == 0


def test_uniform_attention_scores_chance():
    tiled = np.array([(0, 0, 40, 40), *GRID, (0, 0, 40, 4)])
    for regions in (np.array(GRID), tiled):
        places = Places(regions)
        for boxes in ([(3, 7, 22, 31)], [(1, 1, 4, 4), (30, 0, 40, 40)]):
            target = Target.of(places, boxes)
            uniform = scores(torch.full((1, len(regions)), 0.3), places, [target])[:, 0, 0]
            by_chance = chances(places, (40, 40), target)
            assert uniform == pytest.approx(by_chance[:, CHANCES.index("uniform")], abs=1e-6)
            area = target.area / 1600
            assert by_chance[1:, CHANCES.index("area")] == pytest.approx(area, abs=1e-6)
    plain = Places(np.array(GRID))
    target = Target.of(plain, [(10, 10, 30, 20)])
    # 2 of 16 tokens, 200 of 1600 pixels. The centre's four tokens tie, two of them are hits.
    assert chances(plain, (40, 40), target)[:, :2] == pytest.approx(np.full((3, 2), 1 / 8))
    weight = [np.exp(-(((x - 0.5) / 0.25) ** 2) / 2) for x in (0.125, 0.375)]
    expected = weight[1] * 2 * weight[1] / (2 * sum(weight)) ** 2
    assert chances(plain, (40, 40), target)[:2, 2] == pytest.approx([0.5, expected])


def test_a_head_is_measured_on_images_that_did_not_pick_it():
    rng = np.random.default_rng(0)
    image_E = np.repeat(np.arange(40), 2)
    value_EMC = rng.random((80, 1, 300)) < 0.2  # 300 heads that hit at random
    fold_I = folds_of(40, 5, 0)
    assert np.bincount(fold_I).tolist() == [8] * 5
    heads_FMK = picked(value_EMC.astype(float), image_E, fold_I, 3)
    for fold, heads_K in enumerate(heads_FMK[:, 0]):
        others = value_EMC[fold_I[image_E] != fold, 0].mean(0)
        assert heads_K[0] == others.argmax() and (np.diff(others[heads_K]) <= 0).all()
    held_E = of_heads(value_EMC, heads_FMK, fold_I[image_E])[:, 0].astype(float)
    best = best_heads(value_EMC[:, 0], 1)[0]
    held, whole = (estimate(x, image_E, 0) for x in (held_E, value_EMC[:, 0, best].astype(float)))
    assert whole["ci_low"] > 0.2  # by luck
    assert held["ci_low"] <= 0.2 <= held["ci_high"] and held["value"] < whole["ci_low"]
    # A head that is better on all images is found, and keeps its value.
    value_EMC[:, 0, 17] = rng.random(80) < 0.9
    heads_FMK = picked(value_EMC.astype(float), image_E, fold_I, 3)
    assert (heads_FMK[:, 0, 0] == 17).all()
    held_E = of_heads(value_EMC, heads_FMK, fold_I[image_E])[:, 0]
    assert held_E.tolist() == value_EMC[:, 0, 17].tolist()


def test_intervals_draw_images_not_examples():
    value_I = np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.5])
    single = estimate(value_I, np.arange(6), 0)
    repeated = estimate(np.repeat(value_I, 50), np.repeat(np.arange(6), 50), 0)
    for name in ("value", "ci_low", "ci_high"):
        assert single[name] == pytest.approx(repeated[name])
    assert single["ci_high"] - single["ci_low"] > 0.4
    # By hand: of two images, a resample is one of both (half of the time) or each of them.
    two = estimate(np.array([0.0, 0.0, 1.0]), np.array([0, 0, 1]), 0)
    assert [float(two[k]) for k in ("value", "ci_low", "ci_high")] == pytest.approx([1 / 3, 0, 1])


def test_differences_are_paired():
    base_E = np.random.default_rng(0).random(30)
    found = compared(base_E + 0.1, {"control": base_E}, np.arange(30), 0)
    above = found["above"]["control"]
    assert [above[k] for k in ("value", "ci_low", "ci_high")] == pytest.approx([0.1] * 3)
    assert found["ci_high"] - found["ci_low"] > 0.1
    missing = np.where(np.arange(30) < 10, np.nan, base_E)
    assert np.isfinite(compared(base_E, {"control": missing}, np.arange(30), 0)["above"]["control"]["value"])
