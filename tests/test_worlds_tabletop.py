"""Tables: images match their annotations, nothing touches, relations are clear, the same bytes."""

import dataclasses
import hashlib
import json
from itertools import combinations

import numpy as np
import pytest
from worlds_tabletop_scene import BLUE_CUBE, CUBE, RING, SPHERE, TABLE

from attention_atlas.errors import AtlasError, ConfigError
from attention_atlas.synthetic.build import build_world
from attention_atlas.synthetic.mesh import Material, bounds
from attention_atlas.synthetic.render import Rendering
from attention_atlas.synthetic.rooms.view import project
from attention_atlas.synthetic.tabletop import Tabletop
from attention_atlas.synthetic.tabletop.describe import describe
from attention_atlas.synthetic.tabletop.layout import GAP, LEAST_ASIDE, LEAST_DEEPER, lay_table
from attention_atlas.synthetic.tabletop.looks import (
    ATTRIBUTES,
    COLORS,
    MATERIALS,
    SHAPES,
    SIZES,
    TABLES,
    surface,
)
from attention_atlas.synthetic.tabletop.shapes import build, torus
from attention_atlas.synthetic.tabletop.table import OPPOSITE, holds, read_tables, table_row
from attention_atlas.synthetic.tabletop.world import scene_objects


@pytest.fixture(scope="module")
def laid():
    return [lay_table(np.random.default_rng(i)) for i in range(60)]


@pytest.fixture(scope="module")
def drawn():
    world = Tabletop()
    return [world.make(f"train_{i:05d}", "train", [0, 0, i]) for i in range(6)]


def test_nothing_touches_and_everything_is_in_the_image(laid):
    for one in laid:
        assert 3 <= len(one.table.items) <= 8
        for (a, at), (b, bt) in combinations(zip(one.table.items, one.centers, strict=True), 2):
            away = np.hypot(at[0] - bt[0], at[1] - bt[1])
            assert away > SIZES[a.size] + SIZES[b.size] + GAP - 1e-3
        seen = project(one.camera, np.array(one.centers))
        assert np.all(np.abs(seen[:, 0]) < 0.97) and np.all(np.abs(seen[:, 1]) < 0.97)


def test_relations_are_clear_and_are_the_viewers(laid):
    for one in laid:
        feet = project(one.camera, np.array([[x, y, 0.0] for x, y, _ in one.centers]))
        for i, j in combinations(range(len(one.table.items)), 2):
            a, b = one.table.items[i], one.table.items[j]
            assert abs(a.side - b.side) >= LEAST_ASIDE - 1e-3
            assert abs(a.depth - b.depth) >= LEAST_DEEPER - 1e-3
            # What stands in front stands lower in the image.
            assert holds(a, "front", b) == (feet[i, 1] < feet[j, 1])
            for relation, other in OPPOSITE.items():
                assert holds(a, relation, b) == holds(b, other, a) != holds(b, relation, a)


def test_no_two_shapes_are_the_same_and_tables_are_varied(laid):
    items = [i for one in laid for i in one.table.items]
    for one in laid:
        looks = {(i.size, i.color, i.material, i.shape) for i in one.table.items}
        assert len(looks) == len(one.table.items)
    for kind, words in ATTRIBUTES.items():
        shares = [np.mean([getattr(i, kind) == w for i in items]) for w in words]
        assert min(shares) > 0.4 / len(words)
    assert {one.table.kind for one in laid} == set(TABLES)
    assert len({one.camera for one in laid}) == len({one.view.lights[0].position for one in laid}) == 60


def test_the_same_seed_gives_the_same_table():
    first, second = (lay_table(np.random.default_rng(3)) for _ in range(2))
    assert first.table == second.table and first.camera == second.camera
    assert lay_table(np.random.default_rng(4)).table != first.table


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_stands_on_the_table_within_its_footprint(shape):
    parts = build(shape, 0.5, Material())
    points = np.vstack([p.points for p in parts])
    low, high = bounds(parts)
    assert low[2] == pytest.approx(0, abs=1e-9) and high[2] > 0.25
    assert np.hypot(points[:, 0], points[:, 1]).max() <= 0.5 + 0.01


def test_faces_look_outwards():
    for shape in SHAPES:
        for part in build(shape, 0.5, Material()):
            a, b, c = (part.points[part.triangles[:, k]] for k in range(3))
            across = np.cross(b - a, c - a)
            real = np.linalg.norm(across, axis=1) > 1e-9  # the tip of a cone is a face without area
            assert np.all((across * part.normals[part.triangles].mean(axis=1)).sum(1)[real] > 0), shape


def test_torus_by_hand():
    part = torus(2.0, 0.5, (0, 0, 0.5), Material(), sides=4)
    away = np.hypot(part.points[:, 0], part.points[:, 1])
    assert away.max() == pytest.approx(2.5) and away.min() == pytest.approx(1.5)
    # Every point lies on the tube: 0.5 from the circle of radius 2 at height 0.5.
    assert np.allclose(np.hypot(away - 2.0, part.points[:, 2] - 0.5), 0.5)


def test_an_unknown_shape_is_named():
    with pytest.raises(AtlasError, match=r"shape: 'cubes' is unknown.*cube"):
        build("cubes", 0.5, Material())


def test_chosen_words_are_what_is_drawn():
    rng = np.random.default_rng(0)
    for color in COLORS:
        for material in MATERIALS:
            for _ in range(10):
                made = surface(color, material, rng)
                away = {name: np.abs(np.array(made.color) - rgb).sum() for name, rgb in COLORS.items()}
                assert min(away, key=away.get) == color
                assert made.pattern == {"metal": "metal", "rubber": "plain"}[material]


def test_the_image_shows_the_objects_where_the_scene_says(drawn):
    for made in drawn:
        assert made.rgb.shape == (96, 96, 3) and made.scene.split == "train"
        row = made.extra["tables"]
        assert [o.id for o in made.scene.objects] == [o["id"] for o in row["objects"]]
        for seen, place in zip(made.scene.objects, row["objects"], strict=True):
            assert seen.label in SHAPES and len(seen.attributes) == 3
            x1, y1, x2, y2 = seen.box
            assert 0 <= x1 < x2 <= 96 and 0 <= y1 < y2 <= 96 and seen.area <= (x2 - x1) * (y2 - y1)
            middle = (place["side"] + 1) * 48
            assert x1 - 2 <= middle <= x2 + 2
            assert 0 <= seen.occlusion <= 0.7
            if seen.occlusion == 0 and seen.attributes[2] == "rubber" and seen.attributes[1] != "gray":
                patch = made.rgb[int(y1) : int(y2), int(x1) : int(x2)].reshape(-1, 3) / 255
                hue = np.array(COLORS[seen.attributes[1]]) - np.mean(COLORS[seen.attributes[1]])
                tint = patch - patch.mean(axis=1, keepdims=True)
                assert (tint @ hue).max() > 0.5 * (hue @ hue), seen  # some pixel has its colour


def test_visible_objects_of_a_hand_made_image():
    ids = np.full((50, 50), -1, np.int32)
    ids[10:14, 20:25] = 0  # 20 of 2,500 pixels
    ids[30:36, 5:15] = 1
    ids[40:44, 30:40] = 2
    ids[0:5, 0:4] = 3
    image = Rendering(np.zeros((50, 50, 3), np.uint8), ids, {0: 25, 1: 60, 2: 40, 3: 20})
    found = scene_objects(TABLE, image)
    assert [(o.id, o.label, o.area, o.occlusion) for o in found] == [
        (0, "cube", 20, 0.2), (1, "sphere", 60, 0.0), (2, "ring", 40, 0.0), (3, "cube", 20, 0.0),
    ]  # fmt: skip
    assert found[0].box == (20, 10, 25, 14) and found[0].attributes == ["large", "red", "metal"]
    assert scene_objects(TABLE, dataclasses.replace(image, whole={**image.whole, 0: 70})) is None
    ids[0:3, :] = -1  # of the last one 8 pixels are left
    assert scene_objects(TABLE, image) is None


def test_a_description_names_everything_in_order():
    for seed in range(6):
        described = describe("x", TABLE, np.random.default_rng(seed))
        assert described.text.startswith("Four objects are on a wooden table.")
        order = [p.objects[0] for p in described.phrases if p.kind == "object"]
        if "On the left" in described.text:
            assert order == [SPHERE.id, CUBE.id, BLUE_CUBE.id, RING.id]
        else:
            assert order == [RING.id, CUBE.id, BLUE_CUBE.id, SPHERE.id]
        assert len(described.relations) == 3
        for relation in described.relations:
            words = described.text[slice(*relation.relation)]
            name = {"To the right of": "right", "Behind": "behind"}[words]
            (target,), (landmark,) = relation.target_objects, relation.landmark_objects
            assert holds(TABLE.item(target), name, TABLE.item(landmark))
            assert described.text[slice(*relation.landmark)] == "it"


def digest(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(tmp_path):
    for workers in (1, 2):
        build_world(
            Tabletop(), tmp_path / str(workers), tmp_path / "work", {"train": 16, "test": 2}, 3, workers
        )
    assert digest(tmp_path / "1") == digest(tmp_path / "2")
    tables = read_tables(tmp_path / "1")
    assert len(tables) == 18 and all(len(scene.objects) == len(t.items) for scene, t in tables.values())


@pytest.fixture
def corpus(tmp_path, drawn):
    def write(rows):
        lines = {
            "scenes": [dataclasses.asdict(m.scene) for m in drawn[:2]],
            "descriptions": [dataclasses.asdict(m.layers["descriptions"][0]) for m in drawn[:2]],
            "tables": rows,
        }
        for stem, content in lines.items():
            (tmp_path / f"{stem}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content))
        return tmp_path

    return write


def test_tables_survive_the_file(corpus, drawn):
    rows = [json.loads(json.dumps(m.extra["tables"])) for m in drawn[:2]]
    tables = read_tables(corpus(rows))
    for row, made in zip(rows, drawn, strict=False):
        scene, table = tables[row["image_id"]]
        assert [tuple(o.box) for o in scene.objects] == [o.box for o in made.scene.objects]
        assert [o.attributes for o in scene.objects] == [i.attributes for i in table.items]
        assert table_row(row["image_id"], table, row["camera"], [o["center"] for o in row["objects"]]) == row


@pytest.mark.parametrize("spoil, message", [
    (lambda rows: rows[0]["objects"].pop(), "line 1: not the places"),
    (lambda rows: rows[0]["objects"].append({"id": 99, "side": 0, "depth": 1}), "not one place for each"),
    (lambda rows: rows[1].update(image_id="train_00099"), "line 2: not the places"),
    (lambda rows: rows.append(rows[0]), "not one place for each"),
    (lambda rows: rows.pop(), "no row for 'train_00001'"),
])  # fmt: skip
def test_spoilt_places_are_named(corpus, drawn, spoil, message):
    rows = [json.loads(json.dumps(m.extra["tables"])) for m in drawn[:2]]
    spoil(rows)
    with pytest.raises(AtlasError, match=message):
        read_tables(corpus(rows))


@pytest.mark.parametrize("settings, message", [
    ({"image_size": 8}, "image_size: 8"), ({"least_objects": 0}, "least_objects 0"),
    ({"least_objects": 5, "most_objects": 4}, "most_objects 4"), ({"most_objects": 11}, "most_objects 11"),
])  # fmt: skip
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        Tabletop(**settings)


def test_an_unknown_relation_is_named():
    with pytest.raises(AtlasError, match="'above' is not one of left"):
        holds(CUBE, "above", RING)
