"""Sampled rooms: nothing floats, collides or leaves the room; the words of a thing are true of it."""

import dataclasses
import json

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.rooms.categories import CATEGORIES
from attention_atlas.synthetic.rooms.kinds import COLORS, KINDS
from attention_atlas.synthetic.rooms.looks import choose
from attention_atlas.synthetic.rooms.plan import Camera, Placed, Plan
from attention_atlas.synthetic.rooms.plan_file import plan_row, read_plans
from attention_atlas.synthetic.rooms.sample import sample_room
from attention_atlas.synthetic.rooms.view import project
from attention_atlas.synthetic.rooms.ways import WAYS
from attention_atlas.synthetic.rooms.world import scene_objects

SHELL = ("wall", "floor", "ceiling")


@pytest.fixture(scope="module")
def rooms():
    return [sample_room(np.random.default_rng(i)) for i in range(60)]


def things(plan):
    return [o for o in plan.objects if o.label not in SHELL]


def ends(placed):
    center, half = np.array(placed.center), np.array(placed.size) / 2
    return center - half, center + half


def related(a, b):
    """One holds the other: their bounds may overlap. A rug lies under everything."""
    return a.parent == b.id or b.parent == a.id or "rug" in (a.label, b.label)


def test_nothing_stands_in_another_thing(rooms):
    pairs = 0
    for room in rooms:
        placed = things(room.plan)
        for i, a in enumerate(placed):
            for b in placed[i + 1 :]:
                if related(a, b):
                    continue
                pairs += 1
                (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
                overlap = np.minimum(a_high, b_high) - np.maximum(a_low, b_low)
                assert overlap.min() < 1e-3, f"{a.label} {a.id} in {b.label} {b.id}"
    assert pairs > 2000


def test_everything_is_within_the_room(rooms):
    for room in rooms:
        width, depth, height = room.plan.size
        for o in things(room.plan):
            low, high = ends(o)
            assert low[0] > -width / 2 - 1e-3 and high[0] < width / 2 + 1e-3
            assert low[1] > 0 and high[1] < depth + 1e-3 and low[2] > -0.03 and high[2] < height + 1e-3


def test_nothing_floats(rooms):
    for room in rooms:
        width, depth, height = room.plan.size
        for o in things(room.plan):
            low, high = ends(o)
            if o.support == "floor":
                assert abs(low[2]) < 0.03, o.label
            elif o.support == "ceiling":
                assert abs(high[2] - height) < 0.01, o.label
            elif o.support == "wall":
                gap = {"back": depth - high[1], "left": low[0] + width / 2, "right": width / 2 - high[0]}[
                    o.wall
                ]
                assert gap < 0.08, o.label
            else:
                parent = room.plan.object(o.parent)
                below, above = ends(parent)
                x, y, _ = o.center
                assert below[0] <= x <= above[0] and below[1] <= y <= above[1], (o.label, parent.label)
                assert below[2] - 0.03 <= low[2] <= above[2] + 0.03, (o.label, parent.label)
                if o.support == "on" and KINDS[parent.label].top == 1.0:
                    assert abs(low[2] - above[2]) < 0.03, (o.label, parent.label)


def test_doors_can_be_reached(rooms):
    doors = 0
    for room in rooms:
        for door in (o for o in things(room.plan) if o.label == "door" and o.wall == "back"):
            doors += 1
            low, high = ends(door)
            low = low - np.array([0, 0.6, 0])
            for o in things(room.plan):
                if o.label in ("rug", "door") or o.id < door.id:
                    continue
                o_low, o_high = ends(o)
                assert not (np.all(o_low < high - 0.03) and np.all(o_high > low + 0.03)), o.label
    assert doors > 5


def test_rooms_are_varied(rooms):
    plans = [r.plan for r in rooms]
    assert {p.category for p in plans} == set(CATEGORIES)
    assert len({o.label for p in plans for o in things(p)}) >= 45
    assert len({w for p in plans for o in p.objects for w in o.attributes}) >= 25
    counts = [len(things(p)) for p in plans]
    assert 8 <= np.median(counts) <= 16
    several = [len({o.label for o in things(p)}) < len(things(p)) for p in plans]
    assert np.mean(several) > 0.6
    assert any(o.text for p in plans for o in p.objects)
    assert len({p.camera for p in plans}) == len(plans)
    assert len({r.view.lights[0].position for r in rooms}) == len(rooms)
    for support in ("floor", "wall", "ceiling", "on", "in"):
        assert any(o.support == support for p in plans for o in p.objects), support


def test_ids_count_up_and_parents_exist(rooms):
    for room in rooms:
        assert [o.id for o in room.plan.objects] == list(range(len(room.plan.objects)))
        assert [number for number, _ in room.view.solids] == list(range(len(room.plan.objects)))
        assert all(o.parent < len(room.plan.objects) and o.parent != o.id for o in room.plan.objects)


def test_the_same_seed_gives_the_same_room():
    first, second = (sample_room(np.random.default_rng(3)) for _ in range(2))
    assert first.plan == second.plan and first.view.lights == second.view.lights
    assert sample_room(np.random.default_rng(4)).plan != first.plan


def test_chosen_words_are_what_is_drawn():
    rng = np.random.default_rng(0)
    for kind in KINDS.values():
        for _ in range(20):
            chosen = choose(kind, rng)
            main = chosen.look.main
            if chosen.color:
                away = {name: np.abs(np.array(main.color) - rgb).sum() for name, rgb in COLORS.items()}
                assert away[chosen.color] < 0.25
                assert away[chosen.color] <= min(away.values()) + 0.08, kind.label
            assert main.pattern == {"wooden": "wood"}.get(
                chosen.material, chosen.material or chosen.pattern or "plain"
            )
            assert (chosen.shape == "round") == (chosen.look.variant == kind.round_variant)
            for value, (low, high) in zip(chosen.size, kind.size, strict=True):
                assert low <= value <= high


def test_size_words_mark_the_ends_of_the_range():
    rng = np.random.default_rng(0)
    sofa = KINDS["sofa"]
    (low, high), _, _ = sofa.size
    seen = set()
    for _ in range(200):
        chosen = choose(sofa, rng)
        share = (chosen.size[0] - low) / (high - low)
        assert chosen.size_word == ("small" if share < 0.2 else "large" if share > 0.8 else "")
        seen.add(chosen.size_word)
    assert seen == {"small", "large", ""}


def test_every_step_names_a_known_way_kind_and_anchor():
    for category in CATEGORIES.values():
        for step in category.steps:
            assert step.way in WAYS and step.kind in KINDS and 0 < step.chance <= 1
            assert not step.anchor or step.anchor in KINDS
            assert 1 <= step.times[0] <= step.times[1]


def test_projection_by_hand():
    camera = Camera((0, 0, 1), (0, 5, 1), 90.0)
    points = np.array([[0, 2, 1], [2, 2, 1], [0, 4, 3], [-1, 2, 0.5]], dtype=float)
    assert np.allclose(project(camera, points), [[0, 0, 2], [1, 0, 2], [0, 0.5, 4], [-0.5, -0.25, 2]])


def hand_plan():
    shell = [Placed(0, "floor", (0, 2, 0), (4, 4, 0)), Placed(1, "wall", (0, 4, 1), (4, 0, 2), wall="back")]
    ball = Placed(2, "ball", (0, 2, 0.2), (0.4, 0.4, 0.4), color="red", pattern="striped", size_word="small")
    sign = Placed(
        3, "sign", (0, 3.9, 1), (1, 0.1, 0.5), color="white", support="wall", wall="back", text="EAT"
    )
    return Plan("kitchen", (4, 4, 2.5), Camera((0, 0, 1.5), (0, 4, 1), 60), [*shell, ball, sign])


def test_visible_objects_of_a_hand_made_image():
    ids = np.full((20, 20), 0, np.int32)
    ids[0, :11] = 1  # 11 of 400 pixels: below 3 %, so no object
    ids[5:8, 4:10] = 2  # 18 pixels
    ids[10, :11] = 3  # 11 pixels: too few to see
    found = scene_objects(hand_plan(), ids, {0: 400, 1: 100, 2: 24, 3: 11})
    assert [(o.id, o.label) for o in found] == [(0, "floor"), (2, "ball")]
    ball = found[1]
    assert ball.box == (4, 5, 10, 8) and ball.area == 18 and ball.occlusion == 0.25
    assert ball.attributes == ["small", "red", "striped"]
    ids[11, :1] = 3
    ids[0, 11] = 1
    found = scene_objects(hand_plan(), ids, {0: 400, 1: 100, 2: 24, 3: 12})
    assert [o.id for o in found] == [0, 1, 2, 3] and found[3].text == "EAT"


def test_plans_survive_the_file(tmp_path, rooms):
    file = tmp_path / "plans.jsonl"
    plans = {f"train_{i:05d}": r.plan for i, r in enumerate(rooms[:5])} | {"hand": hand_plan()}
    file.write_text("".join(json.dumps(plan_row(i, p)) + "\n" for i, p in plans.items()))
    assert read_plans(file) == plans


@pytest.mark.parametrize("spoil, message", [
    (lambda row: row.pop("camera"), "line 1: not the plan of a room .'camera'"),
    (lambda row: row["objects"][0].update(colour="red"), "colour"),
    (lambda row: row.update(size=[1, 2]), "not the plan of a room"),
])  # fmt: skip
def test_a_broken_plan_is_named(tmp_path, spoil, message):
    row = json.loads(json.dumps(plan_row("a", hand_plan())))
    spoil(row)
    (tmp_path / "plans.jsonl").write_text(json.dumps(row))
    with pytest.raises(AtlasError, match=message):
        read_plans(tmp_path / "plans.jsonl")


def test_a_plan_given_twice_is_named(tmp_path):
    row = json.dumps(plan_row("a", dataclasses.replace(hand_plan())))
    (tmp_path / "plans.jsonl").write_text(f"{row}\n{row}\n")
    with pytest.raises(AtlasError, match="line 2: image_id: 'a' occurs twice"):
        read_plans(tmp_path / "plans.jsonl")
