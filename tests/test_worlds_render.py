"""Meshes and images against hand-worked geometry."""

import numpy as np
import pytest

from attention_atlas.errors import AtlasError
from attention_atlas.synthetic.mesh import Material, bounds, box, cylinder, ellipsoid, moved, panel, turned
from attention_atlas.synthetic.render import Light, Renderer, View
from attention_atlas.synthetic.rooms.kinds import KINDS, Look
from attention_atlas.synthetic.textures import PATTERNS, texture

RED = Material(color=(0.8, 0.1, 0.1))


@pytest.fixture(scope="module")
def renderer():
    return Renderer(100)


def card(width, height, x, y, z=0.0, material=RED):
    return [panel(width, height, (x, y, z), material)]


def looking_ahead(*solids, angle=90.0):
    return View(list(solids), camera=(0, 0, 0), target=(0, 1, 0), angle=angle, ambient=1.0)


def test_a_box_has_its_corners_normals_and_texture_in_metres():
    part = box((2, 4, 6), (1, 0, 3), Material(scale=0.5))
    low, high = bounds([part])
    assert low.tolist() == [0, -2, 0] and high.tolist() == [2, 2, 6]
    front = part.normals[:, 1] == -1
    assert front.sum() == 4 and np.all(part.points[front][:, 1] == -2)
    # 2 m wide and 6 m high at half a metre a tile: 4 × 12 tiles
    assert np.ptp(part.uv[front], axis=0).tolist() == [4, 12]


def test_a_tapered_box_is_narrow_on_top():
    part = box((2, 2, 2), (0, 0, 0), RED, top=0.5)
    upper = part.points[part.points[:, 2] > 0]
    assert np.abs(upper[:, :2]).max() == 0.5


def test_turning_ninety_degrees_lets_the_front_face_right():
    part = turned(panel(1, 1, (0, -2, 0), RED), 90)
    assert np.allclose(part.normals, [1, 0, 0]) and np.allclose(part.points[:, 0], 2)


@pytest.mark.parametrize("label", sorted(KINDS))
def test_every_kind_is_well_made(label):
    kind = KINDS[label]
    size = tuple(float(np.mean(s)) for s in kind.size)
    for variant in range(kind.variants):
        parts = kind.build(size, Look(main=RED, variant=variant, seed=3, words="A"))
        low, high = bounds(parts)
        assert -0.02 < low[2] < 0.03, "stands on the ground"
        assert high[2] < size[2] * 1.12 + 0.25
        for part in parts:
            assert part.points.shape == part.normals.shape and len(part.uv) == len(part.points)
            assert np.allclose(np.linalg.norm(part.normals, axis=1), 1, atol=1e-6)
            a, b, c = (part.points[part.triangles[:, i]] for i in range(3))
            across = np.cross(b - a, c - a)
            real = np.linalg.norm(across, axis=1) > 1e-9
            outward = np.einsum("td,td->t", across, part.normals[part.triangles].mean(axis=1))
            assert np.all(outward[real] > 0), "triangles turn their front outwards"


def test_at_least_25_kinds_and_12_attribute_values():
    assert len(KINDS) >= 25
    words = {w for k in KINDS.values() for w in (*k.colors, *k.materials, *k.patterns, *k.sizes)} - {
        "",
        "plain",
    }
    assert len(words) >= 12


def test_closed_bodies_have_the_volume_of_their_formula():
    def volume(part):
        a, b, c = (part.points[part.triangles[:, i]] for i in range(3))
        return np.einsum("td,td->t", a, np.cross(b, c)).sum() / 6

    assert volume(box((2, 3, 4), (5, 5, 5), RED)) == pytest.approx(24)
    assert volume(cylinder(1.0, 2.0, (3, 0, 0), RED, sides=64)) == pytest.approx(2 * np.pi, rel=0.01)
    assert volume(ellipsoid((2, 4, 6), (0, 3, 0), RED, sides=48)) == pytest.approx(8 * np.pi, rel=0.02)


def test_textures_repeat_for_a_seed_and_an_unknown_one_is_named():
    for name in PATTERNS:
        material = Material(pattern=name, seed=2, words="HI")
        image = texture(material)
        assert image.dtype == np.uint8 and image.shape[2] == 3
        assert image.std() > 1, f"{name} shows nothing"
        texture.cache_clear()
        assert np.array_equal(image, texture(material))
    with pytest.raises(AtlasError, match="did you mean 'striped'"):
        texture(Material(pattern="stripd"))


def test_a_card_covers_the_pixels_of_its_perspective(renderer):
    # 90° over 100 pixels: at 2 m the image is 4 m wide, so 25 pixels a metre.
    image = renderer.draw(looking_ahead((7, card(1.0, 2.0, 0.5, 2.0, 0.2))))
    rows, columns = np.nonzero(image.ids == 7)
    assert (columns.min(), columns.max() + 1) == (50, 75)
    assert (rows.min(), rows.max() + 1) == (20, 70)  # z from -0.8 to 1.2, row 0 on top
    assert image.whole[7] == 25 * 50 == (image.ids == 7).sum()
    assert set(np.unique(image.ids)) == {-1, 7}


def test_nearer_things_occlude_and_the_full_area_is_kept(renderer):
    near, far = card(1.0, 1.0, 0.5, 1.0), card(2.0, 2.0, 0.0, 2.0)
    image = renderer.draw(looking_ahead((0, far), (300, near)))
    # Far: 50 × 50 pixels in the middle. Near: columns 50..100, rows 25..75; so half of far is hidden.
    assert image.whole == {0: 2500, 300: 2500}
    assert (image.ids == 300).sum() == 2500
    assert (image.ids == 0).sum() == 1250


def test_colours_are_lit_and_a_texture_is_shown(renderer):
    plain = renderer.draw(looking_ahead((0, card(9, 9, 0, 2)))).rgb
    assert plain[50, 50, 0] > 150 > 80 > plain[50, 50, 1]
    striped = Material(color=(1, 0, 0), second=(0, 0, 1), pattern="striped", scale=4.0)
    rgb = renderer.draw(looking_ahead((0, card(9, 9, 0, 2, material=striped)))).rgb
    assert (rgb[50, :, 0] > 150).sum() > 20 < (rgb[50, :, 2] > 150).sum()


def test_a_shadow_falls_where_the_light_is_blocked(renderer):
    floor = turned(panel(8, 8, (0, 0, 0), Material(color=(0.8, 0.8, 0.8))), -90, "x")
    block = box((1, 1, 1), (0, 0, 0.5), RED)
    view = View(
        [(0, [floor]), (1, [block])], (0, -4, 4), (0, 0, 0), 60, [Light((-6, 0, 6), (0, 0, 0))], ambient=0.2
    )
    rgb = renderer.draw(view).rgb.astype(int).sum(axis=2)
    beside = {side: rgb[50, 50 + 16 * side] for side in (-1, 1)}  # about 1 m left and right of the block
    assert beside[-1] > 1.3 * beside[1]


def test_drawing_again_after_other_scenes_gives_the_same_bytes(renderer):
    view = looking_ahead((0, card(2, 2, 0, 3)), (1, [moved(ellipsoid((1, 1, 1), (0, 0, 0), RED), (0, 2, 0))]))
    first = renderer.draw(view)
    renderer.draw(looking_ahead((4, card(1, 1, 1, 2))))
    second = renderer.draw(view)
    assert np.array_equal(first.rgb, second.rgb) and np.array_equal(first.ids, second.ids)


def test_a_machine_without_opengl_gets_install_instructions(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("VTK_DEFAULT_OPENGL_WINDOW", raising=False)
    monkeypatch.setattr("attention_atlas.synthetic.render._loads", lambda library: False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(AtlasError, match="libegl1"):
        Renderer(32)


def test_ids_that_do_not_fit_the_image_are_refused(renderer):
    with pytest.raises(AtlasError, match="65534"):
        renderer.draw(looking_ahead((70000, card(1, 1, 0, 2))))
