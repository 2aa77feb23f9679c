"""The world of birds: surfaces, parts, scene annotations against the image."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from attention_atlas.data.corpus import read_corpus
from attention_atlas.errors import ConfigError
from attention_atlas.synthetic.birds import Birds
from attention_atlas.synthetic.birds.anatomy import build_bird
from attention_atlas.synthetic.birds.bird import IDS, PARTS, sample_bird
from attention_atlas.synthetic.birds.families import FAMILIES
from attention_atlas.synthetic.birds.loft import cut, loft
from attention_atlas.synthetic.birds.palette import COLORS, FEATHERS, color_of
from attention_atlas.synthetic.birds.world import main_color, pose, scene_objects
from attention_atlas.synthetic.build import build_world
from attention_atlas.synthetic.mesh import Material


@pytest.fixture(scope="module")
def birds():
    return [sample_bird(np.random.default_rng(i)) for i in range(300)]


@pytest.fixture(scope="module")
def drawn():
    world = Birds(64)
    return [(image, bird, objects) for image, (bird, _), objects in drawn_by(world)]


def drawn_by(world):
    return [world.draw("train", [0, 0, i]) for i in range(12)]


def test_a_loft_of_equal_radii_is_a_cylinder():
    spine = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    half = np.array([0.5, 0.5, 0.5])
    tube, where, side = loft(spine, half, half, Material(), rings=5, sides=40)
    wall = tube.points[: 5 * 41]
    assert np.allclose(np.hypot(wall[:, 1], wall[:, 2]), 0.5)
    assert np.allclose(tube.normals[: 5 * 41, 1:], wall[:, 1:] / 0.5, atol=1e-6)
    a, b, c = (tube.points[tube.triangles[:, k]] for k in range(3))
    outward = np.cross(b - a, c - a)
    assert np.all((outward * tube.normals[tube.triangles[:, 0]]).sum(1) >= -1e-12)  # seen from outside
    assert np.isclose((a * outward).sum() / 6, np.pi * 0.25 * 2, rtol=0.01)  # closed: the volume comes out
    height = tube.points[tube.triangles].mean(axis=1)[:, 2]
    on_wall = np.abs(outward[:, 0]) < 1e-9
    assert np.allclose(height[on_wall] / 0.5, side[on_wall], atol=0.06)
    middle = tube.points[tube.triangles].mean(axis=1)[:, 0]
    assert np.allclose(middle[on_wall], where[on_wall], atol=0.2)


def test_cutting_loses_and_doubles_no_triangle():
    spine, half = np.array([[0.0, 0.0], [1.0, 0.3], [1.2, 1.0]]), np.array([0.2, 0.4, 0.1])
    tube, where, _ = loft(spine, half, half * 0.8, Material())
    pieces = [cut(tube, where < 1), cut(tube, where >= 1)]
    corners = np.concatenate([p.points[p.triangles].reshape(-1, 9) for p in pieces])
    whole = tube.points[tube.triangles].reshape(-1, 9)
    assert np.array_equal(np.sort(corners, axis=0), np.sort(whole, axis=0))
    assert all(p.triangles.max() == len(p.points) - 1 for p in pieces)


def test_every_part_is_built_in_its_color(birds):
    for bird in birds[:40]:
        pieces = build_bird(bird)
        assert set(pieces) == set(PARTS) - ({"legs"} if bird.flying else set())
        for name, parts in pieces.items():
            assert sum(len(p.triangles) for p in parts) > 0
            painted = {p.material.color for p in parts if len(p.triangles)}
            wanted = {COLORS[bird.colors[name]]}
            if name in bird.patterns:
                wanted.add(COLORS[bird.patterns[name][1]])
            assert painted == wanted, name


def test_birds_are_varied_and_no_part_decides_another(birds):
    assert {b.family for b in birds} == set(FAMILIES)
    assert {b.side for b in birds} == {1, -1} and 0.1 < np.mean([b.flying for b in birds]) < 0.4
    assert len(FEATHERS) >= 8
    for part in ("back", "breast", "belly", "throat", "head", "crown", "wing", "tail"):
        colors = [b.colors[part] for b in birds]
        assert set(colors) == set(FEATHERS), part
        assert max(colors.count(c) for c in FEATHERS) < 0.2 * len(birds), part
        other = [np.mean([b.colors[part] == b.colors[p] for b in birds]) for p in others(part)]
        assert max(other) < 0.75, part
    assert {p for b in birds for p, _ in b.patterns.values()} == {"barred", "striped", "spotted"}
    for bird in birds:
        assert all(second != bird.colors[part] for part, (_, second) in bird.patterns.items())


def others(part):
    return [p for p in ("back", "breast", "belly", "throat", "head", "crown", "wing", "tail") if p != part]


def test_words_of_a_part_by_hand(birds):
    bird = dataclasses.replace(
        birds[0],
        family="hawk",
        beak=0.7,
        tail=0.6,
        legs=0.3,
        share=0.95,
        colors=dict.fromkeys(PARTS, "red") | {"wing": "blue"},
        patterns={"wing": ("barred", "white")},
    )
    assert bird.words("beak") == ["short", "hooked", "red"]
    assert bird.words("tail") == ["long", "red"] and bird.words("legs") == ["red"]
    assert bird.words("wing") == ["blue", "barred"] and bird.words("bird") == ["large"]
    assert dataclasses.replace(bird, family="finch", beak=1.6, share=0.73).words("beak") == ["long", "red"]
    assert dataclasses.replace(bird, share=0.73).words("bird") == ["small"]
    assert color_of(["short", "hooked", "red"]) == "red" and color_of(["cloudy"]) == ""


def test_visible_parts_of_a_hand_made_image(birds):
    bird = dataclasses.replace(
        birds[0], ground="branch", colors=dict.fromkeys(PARTS, "red") | {"wing": "blue"}, patterns={}
    )
    ids = np.full((40, 40), IDS["backdrop"], np.int32)
    ids[10:14, 5:15] = IDS["belly"]
    ids[14:16, 5:15] = IDS["wing"]
    ids[0, 0] = IDS["eye"]  # 1 of 1600 pixels: cannot be seen
    ids[30:32] = IDS["ground"]
    around = {"backdrop": ("sky", ["blue"]), "ground": ("branch", ["brown"])}
    whole = {IDS["belly"]: 50, IDS["wing"]: 20, IDS["ground"]: 80, IDS["backdrop"]: 1600, IDS["eye"]: 1}
    found = {o.label: o for o in scene_objects(bird, around, ids, whole)}
    assert list(found) == ["bird", "belly", "wing", "branch", "sky"]
    assert found["belly"].box == (5, 10, 15, 14) and found["belly"].area == 40
    assert found["belly"].occlusion == 0.2 and found["wing"].occlusion == 0
    assert found["bird"].area == 61 and found["bird"].box == (0, 0, 15, 16)  # the eye's pixel is the bird's
    assert "red" in found["bird"].attributes and found["branch"].attributes == ["brown"]
    masks = {name: ids == number for name, number in IDS.items()}
    assert main_color(bird, masks) == ["red"]  # 40 of 60 pixels of feathers
    masks["wing"] = masks["ground"]
    assert main_color(bird, masks) == ["blue"]  # 80 of 120
    masks["wing"] = ids == -5
    masks["wing"][:1] = True
    assert main_color(bird, masks) == []  # 40 and 40


def test_images_show_what_scenes_say(drawn):
    """The middle colour of a plain part is nearest to the colour that its attributes name."""
    right = total = 0
    for image, bird, objects in drawn:
        assert image.rgb.shape == (64, 64, 3) and len({o.id for o in objects}) == len(objects)
        for item in objects:
            mask = image.ids == item.id
            if item.label == "bird":
                continue
            rows, columns = np.nonzero(mask)
            assert item.area == mask.sum()
            assert item.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            if item.label in PARTS and item.area >= 20 and item.label not in bird.patterns:
                shown = np.median(image.rgb[mask] / 255, axis=0)
                chroma = {c: np.abs(shown - np.array(v)).sum() for c, v in COLORS.items()}
                right += min(chroma, key=chroma.get) == color_of(item.attributes)
                total += 1
    assert total > 60 and right / total > 0.85


def test_the_bird_fills_the_frame_and_stands_on_its_ground(drawn):
    for _, bird, objects in drawn:
        found = {o.id: o for o in objects}
        x1, y1, x2, y2 = found[0].box
        assert 0.6 * 64 < max(x2 - x1, y2 - y1) <= 64
        assert 1 + sum(o.label in PARTS for o in objects) == sum(o.id < IDS["ground"] for o in objects)
        assert (IDS["ground"] in found) != bird.flying
        if bird.ground == "branch":
            assert abs(found[IDS["ground"]].box[1] - y2) < 16 or IDS["legs"] not in found


def test_the_same_bytes_at_any_number_of_workers(tmp_path):
    sizes = {"train": 14, "val": 1, "test": 2}
    digests = []
    for workers in (1, 2):
        root = tmp_path / str(workers)
        build_world(Birds(32), root, tmp_path / f"work{workers}", sizes, 3, workers)
        files = sorted(p for p in root.rglob("*") if p.is_file())
        digests.append({p.relative_to(root): hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    assert digests[0] == digests[1] and len(digests[0]) == 17 + 2
    corpus = read_corpus(tmp_path / "1")
    assert len(corpus.split("train")) == 14 and len(set(digests[0].values())) == 19


def test_a_view_is_the_same_each_time(birds):
    one, two = (pose(birds[5]) for _ in range(2))
    assert one[1] == two[1] and one[0].lights == two[0].lights
    for (i, first), (j, second) in zip(one[0].solids, two[0].solids, strict=True):
        assert i == j and all(np.array_equal(a.points, b.points) for a, b in zip(first, second, strict=True))


def test_settings_out_of_range_are_named():
    with pytest.raises(ConfigError, match=r"Birds: image_size: 8 is not between 32 and 1024"):
        Birds(image_size=8)
    with pytest.raises(ConfigError, match=r"Birds: least_parts: 12 is not between 1 and 11"):
        Birds(least_parts=12)
