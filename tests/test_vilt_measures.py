"""Measures of the layer-wise study by hand, planted differences, and overlays on images of several
shapes.
"""

from __future__ import annotations

import numpy as np
import pytest

from attention_atlas.data.patches import coverage, patches_of
from attention_atlas.dumps.vqa import GROUPS
from attention_atlas.errors import AtlasError
from attention_atlas.measures.means import Sample, head_mean_rows
from attention_atlas.plotting.overlay import overlay
from attention_atlas.plotting.style import new_figure
from attention_atlas.recording import Axis
from attention_atlas.studies.vilt_layers.measures import Question, measure, stack
from attention_atlas.studies.vilt_layers.rows import difference_rows, rank_correlation_rows
from attention_atlas.studies.vilt_layers.shown import patch_grid, word_maps

# [CLS] where is sofa [SEP] [IMG] and a grid of 1 × 4 patches, the last of which shows the sofa.
AXIS = Axis(
    ["[CLS]", "where", "is", "sofa", "[SEP]", "[IMG]", "1,1", "1,2", "1,3", "1,4"],
    ["bos", "text", "text", "text", "eos", "special", *["image"] * 4],
    [-1, 0, 1, 2, -1, -1, -1, -1, -1, -1],
)


def question(attn_QK: np.ndarray) -> Question:
    member = np.zeros((10, len(GROUPS)))
    for k, group in enumerate(["cls", "text", "text", "text", "sep", "image_cls", *["image"] * 4]):
        member[k, GROUPS.index(group)] = 1
    member[9, GROUPS.index("asked")] = 1
    entropy = -(attn_QK * np.log(np.maximum(attn_QK, 1e-12))).sum(-1)
    return Question((attn_QK @ member)[None, None], entropy[None, None], AXIS, list(GROUPS), asked=1)


def test_even_attention_is_at_chance_everywhere():
    found = measure(question(np.full((10, 10), 0.1)))
    for (name, condition), (value, chance) in found.items():
        assert value[0, 0] == pytest.approx(1.0 if "over_chance" in name else chance), (name, condition)
    assert found["mass", "text → image"][1] == pytest.approx(0.4)
    assert found["mass", "text → text"][1] == pytest.approx(0.3)
    assert found["asked", "cls"][1] == pytest.approx(0.25)


def test_measures_by_hand():
    attn = np.full((10, 10), 0.1)
    attn[3] = [
        0,
        0,
        0.2,
        0,
        0,
        0,
        0,
        0,
        0.2,
        0.6,
    ]  # "sofa": 0.8 to the image, three quarters of it to the sofa
    attn[1] = [0.5, 0, 0, 0.5, 0, 0, 0, 0, 0, 0]  # "where" looks at words alone
    attn[0] = [0, 0, 0, 0, 0, 0, 1, 0, 0, 0]
    found = {key: value[0, 0] for key, (value, _) in measure(question(attn)).items()}
    assert found["mass", "text → image"] == pytest.approx((0.0 + 0.4 + 0.8) / 3)
    assert found["mass", "text → text"] == pytest.approx((0.5 + 0.3 + 0.2) / 3)
    assert found["mass", "cls → image"] == pytest.approx(1.0)
    assert found["word_mass", "question word → image"] == pytest.approx(0.0)
    assert found["word_mass", "content words → image"] == pytest.approx(0.8)
    assert found["word_mass_over_chance", "content words → image"] == pytest.approx(2.0)
    assert found["asked", "content words"] == pytest.approx(0.75)
    assert found["asked_over_chance", "content words"] == pytest.approx(3.0)
    assert found["asked", "cls"] == pytest.approx(0.0)
    assert found["entropy", "cls"] == pytest.approx(0.0)
    assert found["entropy", "image"] == pytest.approx(1.0)


def test_unknown_things_have_no_grounding():
    item = question(np.full((10, 10), 0.1))
    item.asked = 0
    assert not [key for key in measure(item) if key[0].startswith("asked")]
    values = stack([measure(item), measure(question(np.full((10, 10), 0.1)))])
    assert np.isnan(values["asked", "cls"][0][0]).all() and values["asked", "cls"][0][1] == pytest.approx(
        0.25
    )


def planted(rng, shift=0.0):
    """120 questions on 40 images, 2 × 3 heads; the first 60 have `shift` more in head (1, 2)."""
    values = rng.normal(0.5, 0.05, (120, 2, 3))
    values[:60, 1, 2] += shift
    return values, Sample.of([f"i{n % 40}" for n in range(120)], 400, 0)


def test_means_and_intervals():
    values, sample = planted(np.random.default_rng(0))
    chosen = np.arange(120) < 60
    rows = head_mean_rows(sample, values, chosen, np.full(120, 0.3), {"measure": "mass"})
    whole = next(r for r in rows if r["layer"] == -1)
    assert whole["value"] == pytest.approx(values[:60].mean()) and whole["chance"] == pytest.approx(0.3)
    assert whole["n"] == 60 and whole["ci_low"] < whole["value"] < whole["ci_high"]
    one = next(r for r in rows if (r["layer"], r["head"]) == (1, 2))
    assert one["value"] == pytest.approx(values[:60, 1, 2].mean())
    assert head_mean_rows(sample, np.full((120, 2, 3), np.nan), chosen, np.zeros(120), {}) == []


def test_a_planted_difference_is_found_in_its_head_and_noise_is_not():
    values, sample = planted(np.random.default_rng(1), shift=0.1)
    first = np.arange(120) < 60
    rows = difference_rows(sample, values, first, ~first, {"measure": "mass"}, 500, 0)
    p = {(r["layer"], r["head"]): r["value"] for r in rows if r.get("statistic") == "p Holm"}
    raw = {(r["layer"], r["head"]): r["value"] for r in rows if r.get("statistic") == "p"}
    assert p[1, 2] < 0.05 and all(value > 0.05 for head, value in p.items() if head != (1, 2))
    assert p[1, 2] == pytest.approx(6 * raw[1, 2])  # the smallest of six heads
    seen = next(r for r in rows if "statistic" not in r and (r["layer"], r["head"]) == (1, 2))
    assert seen["value"] == pytest.approx(values[:60, 1, 2].mean() - values[60:, 1, 2].mean())
    assert 0 < seen["ci_low"] < seen["value"] < seen["ci_high"]


def test_rank_correlation_by_hand():
    y = np.array([[1.0, 2.0], [3.0, 4.0]])
    rows = rank_correlation_rows({("mass", "same"): y**3, ("mass", "other"): -y}, y, {"kind": "k"})
    values = {r["condition"]: r["value"] for r in rows if "statistic" not in r}
    assert values == {"same": pytest.approx(1.0), "other": pytest.approx(-1.0)}
    with pytest.raises(AtlasError, match="heads"):
        rank_correlation_rows({("x", ""): np.zeros((3, 2))}, y, {"kind": "k"})


def test_boxes_to_patches_against_pixels():
    rng = np.random.default_rng(2)
    for width, height, rows, columns in ((48, 48, 3, 3), (96, 32, 2, 6), (30, 90, 9, 3)):
        x1, y1 = rng.integers(0, width - 8), rng.integers(0, height - 8)
        box = (x1, y1, rng.integers(x1 + 4, width), rng.integers(y1 + 4, height))
        pixels = np.zeros((height, width))
        pixels[box[1] : box[3], box[0] : box[2]] = 1
        naive = pixels.reshape(rows, height // rows, columns, width // columns).mean((1, 3))
        np.testing.assert_allclose(coverage([box], (width, height), (rows, columns))[0], naive)
    # A box smaller than a patch has its best patch.
    assert patches_of([(18, 2, 20, 4)], (48, 48), (3, 3)).tolist() == [False, True, *[False] * 7]


@pytest.mark.parametrize("size", [(144, 144), (192, 96), (80, 160)])
def test_overlay_lands_on_the_right_patch(size):
    """A white square in one patch, attention on that patch alone: the drawing is brightest there."""
    width, height = size
    rows, columns = height // 16, width // 16
    row, column = rows - 2, 1
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255
    attn = np.zeros((1, 2, 3 + rows * columns, 3 + rows * columns))
    attn[:, :, 1, 3 + row * columns + column] = 1.0
    axis = Axis(
        ["[CLS]", "sofa", "[IMG]", *(f"{r + 1},{c + 1}" for r in range(rows) for c in range(columns))],
        ["bos", "text", "special", *["image"] * (rows * columns)],
    )
    assert patch_grid(axis) == (rows, columns)
    maps = {m["word"]: np.array(m["map"]) for m in word_maps(attn, axis)}
    assert np.argwhere(maps["sofa"][0] > 0).tolist() == [[row, column]]
    figure = new_figure(width / 100, height / 100)
    figure.set_layout_engine("none")
    ax = figure.add_axes((0, 0, 1, 1))
    overlay(ax, image, maps["sofa"][0], 1.0)
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = np.asarray(canvas.buffer_rgba())[..., :3].astype(float)
    assert drawn.shape[:2] == (height, width)
    yellow = drawn[..., 0] - drawn[..., 2]
    inside = yellow[16 * row + 2 : 16 * row + 14, 16 * column + 2 : 16 * column + 14]
    assert inside.min() > 150
    outside = yellow.copy()
    outside[16 * row - 1 : 16 * row + 17, 16 * column - 1 : 16 * column + 17] = 0
    assert outside.max() < 20
